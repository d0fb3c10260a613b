"""From corpora to a published version of an index, and from one version to the next.

A build passes through these modules in this order:

1. `readers` open the corpora as streams of rows.
2. `build` makes the plan (`build_plan`); `corpus_checks` refuse changed or damaged corpora.
3. `staging` looks for a published version of the plan, else opens its staging folder, where the
   `journal` records each finished step.
4. `numbering` cleans the rows (`cleaning_rules`, `normalization`, `cleaning_stats`), drops
   `duplicates` (`word_sets`) and gives the rest row ids.
5. `engine` encodes them shard by shard, here or on a Ray cluster (`ray_engine`, `ray_stream`,
   `ray_blocks`, `ray_session`); `provenance` records how.
6. `staging` indexes the vectors and publishes the version.

A published version is changed by `adding` corpora, `removing` prompts or dropping
`semantic_duplicates`; the last two share `rewriting`.
"""
