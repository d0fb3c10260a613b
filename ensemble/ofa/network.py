"""The OFA network (Wang et al. 2022, arXiv:2202.03052) for captions, inference only.

A transformer with the extra norms and gains of NormFormer (Shleifer et al. 2021, arXiv:2110.09456).
Positions are not added to its inputs: every attention gets an additive bias from absolute positions
(Ke et al. 2021, arXiv:2006.15595) and, inside one modality, from relative ones. Modules and
parameters are named as in the published checkpoints. Import this file only to load a checkpoint.

Letters in shapes: b images, r rows of answers (b times the beams), p image patches, t prompt
tokens, s = p + t, u new tokens of an answer, n tokens of it so far (u among them), d model width, h
heads. Images and prompts fill their rows: there is no padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from imprompt.encoders.foreign import built_timm
from imprompt.ensemble.ofa.ofa_config import OfaConfig

TEXT, IMAGE = 0, 1
"""Rows of the type embedding."""
_TRUNK_CHANNELS = 1024
_TOKEN_PLACES = 1024
"""Side of the table of token buckets, in every checkpoint; unlike `max_position_embeddings`."""


@dataclass(frozen=True, slots=True)
class Source:
    """The input of the decoder, computed once for each image and shared by all its beams.

    `states` (b, s, d) leave the encoder, patches first; `position_keys` (s, d) is the positions'
    side of the cross-attention bias; `keys_values` holds the (b, h, s, d / h) keys and values of
    each decoder layer.
    """

    states: Tensor
    position_keys: Tensor
    keys_values: tuple[tuple[Tensor, Tensor], ...]


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Reshape (..., n, d) to (..., h, n, d / h)."""
    return states.reshape(*states.shape[:-1], heads, -1).transpose(-3, -2)


def token_buckets(config: OfaConfig) -> Tensor:
    """Return (1024, 1024) int64 rows of the relative table, one for each pair of tokens.

    Distances below half of `token_bucket_size` have a row each, larger ones share rows on a
    logarithmic scale (the buckets of DeBERTa, He et al. 2021, arXiv:2006.03654, appendix A.5).
    """
    places = torch.arange(_TOKEN_PLACES)
    distance = places[:, None] - places[None, :]
    half = config.token_bucket_size // 2
    beyond = torch.log(distance.abs().clamp(min=half) / half) / math.log((_TOKEN_PLACES - 1) / half)
    shared = half + torch.ceil(beyond * (half - 1)).long()
    return (
        torch.where(distance.abs() <= half, distance, shared * distance.sign())
        + config.token_bucket_size
        - 1
    )


def image_buckets(config: OfaConfig) -> Tensor:
    """Return (m + 1, m + 1) int64 rows of the relative table, one for each pair of grid cells.

    The grid is square with m = `image_bucket_size` squared cells. Cell 0 stands for no cell: its
    row, its column and its pair with itself have the last three rows of the table, as in BEiT (Bao
    et al. 2022, arXiv:2106.08254).
    """
    side = config.image_bucket_size
    span = 2 * side - 1
    row, column = (
        axis.flatten()
        for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    )
    buckets = torch.empty(side * side + 1, side * side + 1, dtype=torch.int64)
    buckets[1:, 1:] = (row[:, None] - row + side - 1) * span + column[:, None] - column + side - 1
    buckets[0, :] = span * span
    buckets[:, 0] = span * span + 1
    buckets[0, 0] = span * span + 2
    return buckets


class Attention(nn.Module):
    """Multi-head attention with an additive bias and a learned gain for each head (`c_attn`)."""

    def __init__(self, config: OfaConfig, heads: int) -> None:
        super().__init__()
        width = config.d_model
        self.heads = heads
        self.scale = bias_scale(config, heads)
        self.c_attn = nn.Parameter(torch.ones(heads))
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (b, h, s, d / h) of states (b, s, d)."""
        return split_heads(self.k_proj(states), self.heads), split_heads(
            self.v_proj(states), self.heads
        )

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Return (r, u, d) for states (r, u, d), keys, values (b, h, s, d / h) and bias (h, u, s).

        Where r is a multiple of b, consecutive rows share an image, whose keys then serve all of
        its beams without a copy.
        """
        beams = len(states) // len(keys)
        queries = split_heads(
            self.q_proj(states.reshape(len(keys), -1, states.shape[-1])), self.heads
        )
        mask = bias.repeat(1, beams, 1)[None]
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=self.scale
        )
        gained = mixed * self.c_attn[:, None, None]
        # nn.Module returns Any.
        return self.out_proj(gained.transpose(1, 2).reshape(states.shape))  # type: ignore[no-any-return]


def bias_scale(config: OfaConfig, heads: int) -> float:
    """Return the factor of attention logits and of positions.

    It is (2 d / h) ** -0.5 in every published checkpoint.
    """
    return float((config.attn_scale_factor * config.d_model / heads) ** -0.5)


def position_bias(queries: Tensor, keys: Tensor, *, heads: int, scale: float) -> Tensor:
    """Return the (h, u, n) attention bias of projected positions (u, d) and (n, d)."""
    return split_heads(queries, heads) @ split_heads(keys, heads).transpose(-1, -2) * scale


def relative_bias(table: nn.Module, buckets: Tensor) -> Tensor:
    """Return the (h, u, n) attention bias of the rows (u, n) of one layer's table."""
    return table(buckets).permute(2, 0, 1)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """The part that all layers share: a norm, two linear maps, NormFormer's norm between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.ffn_layer_norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def feed_forward(self, states: Tensor) -> Tensor:
        hidden = functional.gelu(self.fc1(self.final_layer_norm(states)))
        return states + self.fc2(self.ffn_layer_norm(hidden))  # type: ignore[no-any-return]


class EncoderLayer(FeedForward):
    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config.d_model, config.encoder_ffn_dim)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn = Attention(config, config.encoder_attention_heads)
        self.self_attn_mid_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        normed = self.self_attn_layer_norm(states)
        attended = self.self_attn(normed, *self.self_attn.keys_values(normed), bias)
        return self.feed_forward(states + self.self_attn_mid_layer_norm(attended))


class DecoderLayer(FeedForward):
    def __init__(self, config: OfaConfig, index: int) -> None:
        super().__init__(config.d_model, config.decoder_ffn_dim)
        self.index = index
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn = Attention(config, config.decoder_attention_heads)
        self.self_attn_mid_layer_norm = nn.LayerNorm(config.d_model)
        self.cross_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.cross_attn = Attention(config, config.decoder_attention_heads)
        self.cross_attn_mid_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self, states: Tensor, bias: Tensor, cross_bias: Tensor, source: Source, past: DynamicCache
    ) -> Tensor:
        normed = self.self_attn_layer_norm(states)
        keys, values = past.update(*self.self_attn.keys_values(normed), self.index)
        states = states + self.self_attn_mid_layer_norm(self.self_attn(normed, keys, values, bias))
        normed = self.cross_attn_layer_norm(states)
        crossed = self.cross_attn(normed, *source.keys_values[self.index], cross_bias)
        return self.feed_forward(states + self.cross_attn_mid_layer_norm(crossed))


class OfaEncoder(nn.Module):
    """Encodes the patches of an image and the tokens of a prompt as one sequence of states."""

    token_rp_bucket: Tensor
    image_rp_bucket: Tensor

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.encoder_attention_heads
        self.grid = config.image_bucket_size
        self.position_bias = partial(position_bias, heads=heads, scale=bias_scale(config, heads))
        self.embed_images = built_timm(config.resnet_type, features_only=True, out_indices=(3,))
        self.image_proj = nn.Linear(_TRUNK_CHANNELS, width)
        self.patch_layernorm_embedding = nn.LayerNorm(width)
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.type_embedding = nn.Embedding(2, width)
        self.embed_image_positions = nn.Embedding(self.grid**2 + 1, width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.pos_q_linear, self.pos_k_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        token_rows, image_rows = 2 * config.token_bucket_size - 1, (2 * self.grid - 1) ** 2 + 3
        self.token_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(token_rows, heads) for _ in self.layers
        )
        self.image_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(image_rows, heads) for _ in self.layers
        )
        self.register_buffer("token_rp_bucket", token_buckets(config))
        self.register_buffer("image_rp_bucket", image_buckets(config))

    def forward(self, pixels: Tensor, prompt_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (b, s, d) and positions (s, d).

        Args:
            pixels: (b, 3, height, width).
            prompt_ids: (b, t).
        """
        features = self.embed_images(pixels)[-1]
        cells = self._cells(*features.shape[-2:]).to(pixels.device)
        patches = (
            self.image_proj(features.flatten(2).transpose(1, 2)) + self.type_embedding.weight[IMAGE]
        )
        words = self.embed_tokens(prompt_ids) + self.type_embedding.weight[TEXT]
        states = torch.cat(
            [self.patch_layernorm_embedding(patches), self.layernorm_embedding(words)], dim=1
        )
        n_patches, n_words = len(cells), prompt_ids.shape[1]
        positions = torch.cat(
            [
                self.image_pos_ln(self.embed_image_positions(cells)),
                self.pos_ln(self.embed_positions.weight[:n_words]),
            ]
        )
        absolute = self.position_bias(self.pos_q_linear(positions), self.pos_k_linear(positions))
        image_rows, token_rows = (
            self.image_rp_bucket[cells][:, cells],
            self.token_rp_bucket[:n_words, :n_words],
        )
        tables = zip(
            self.layers, self.image_rel_pos_table_list, self.token_rel_pos_table_list, strict=True
        )
        for layer, image_table, token_table in tables:
            bias = absolute.clone()
            bias[:, :n_patches, :n_patches] += relative_bias(image_table, image_rows)
            bias[:, n_patches:, n_patches:] += relative_bias(token_table, token_rows)
            states = layer(states, bias)
        return self.layer_norm(states), positions

    def _cells(self, rows: int, columns: int) -> Tensor:
        """Return the (rows * columns,) grid cells of an image, from the upper left corner."""
        return (torch.arange(rows)[:, None] * self.grid + torch.arange(columns) + 1).flatten()


class OfaDecoder(nn.Module):
    """Decodes the tokens of an answer; each sees the tokens before it and the source."""

    token_rp_bucket: Tensor

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.decoder_attention_heads
        self.position_bias = partial(position_bias, heads=heads, scale=bias_scale(config, heads))
        self.layernorm_embedding = nn.LayerNorm(width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear, self.self_pos_k_linear = (
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.cross_pos_q_linear, self.cross_pos_k_linear = (
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.layers = nn.ModuleList(
            DecoderLayer(config, index) for index in range(config.decoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        token_rows = 2 * config.token_bucket_size - 1
        self.token_rel_pos_table_list = nn.ModuleList(
            nn.Embedding(token_rows, heads) for _ in self.layers
        )
        self.register_buffer("token_rp_bucket", token_buckets(config))

    def forward(self, embedded: Tensor, source: Source, past: DynamicCache) -> Tensor:
        """Return states (r, u, d) of the newest tokens, which are added to `past`."""
        start = past.get_seq_length()
        end = start + embedded.shape[1]
        positions = self.pos_ln(self.embed_positions.weight[:end])
        newest = positions[start:]
        absolute = self.position_bias(
            self.self_pos_q_linear(newest), self.self_pos_k_linear(positions)
        )
        future = torch.full_like(absolute[0], -math.inf).triu(start + 1)
        cross_bias = self.position_bias(self.cross_pos_q_linear(newest), source.position_keys)
        rows = self.token_rp_bucket[start:end, :end]
        states = self.layernorm_embedding(embedded)
        for layer, table in zip(self.layers, self.token_rel_pos_table_list, strict=True):
            states = layer(
                states, absolute + relative_bias(table, rows) + future, cross_bias, source, past
            )
        return self.layer_norm(states)  # type: ignore[no-any-return]


# transformers' classes are untyped.
class Ofa(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The whole network; for transformers a language model over answers, given a `Source`.

    So the source is neither copied for every beam nor reordered at every step, as an encoder's
    outputs would be.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(
            PreTrainedConfig(num_hidden_layers=config.decoder_layers, vocab_size=config.vocab_size)
        )
        self.encoder = OfaEncoder(config)
        self.decoder = OfaDecoder(config)

    def encode(self, pixels: Tensor, prompt_ids: Tensor) -> Source:
        """Return the source of captions.

        Args:
            pixels: (b, 3, height, width) float32, from -1 to 1.
            prompt_ids: (b, t) int64.
        """
        states, positions = self.encoder(pixels, prompt_ids)
        # The layers are typed as Module.
        crossings: list[Attention] = [layer.cross_attn for layer in self.decoder.layers]  # type: ignore[misc]
        keys_values = tuple(crossing.keys_values(states) for crossing in crossings)
        return Source(states, self.decoder.cross_pos_k_linear(positions), keys_values)

    def forward(
        self,
        input_ids: Tensor,
        source: Source,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = True,  # noqa: ARG002  # always a cache
        return_dict: bool = True,  # noqa: ARG002  # always
    ) -> CausalLMOutputWithPast:
        """Return logits (r, u, vocabulary) of the next token after each of `input_ids` (r, u)."""
        past = DynamicCache() if past_key_values is None else past_key_values
        table = self.encoder.embed_tokens.weight  # shared by input and output
        states = self.decoder(functional.embedding(input_ids, table), source, past)
        return CausalLMOutputWithPast(logits=functional.linear(states, table), past_key_values=past)
