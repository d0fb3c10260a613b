"""From a question to its answer.

`questions` reads an image and a text, `search` embeds them, finds the nearest rows of the index and
makes an answer (`answers`). `filters` restricts the rows, `collapsing` keeps the nearest of each
group of near duplicates, `query_embedding` loads items in batches of bounded memory, and
`file_prompts` answers from the images' metadata alone.
"""

from imprompt.retriever.answers import Answer, Neighbour, Question
from imprompt.retriever.filters import Filters
from imprompt.retriever.search import Retriever

__all__ = ["Answer", "Filters", "Neighbour", "Question", "Retriever"]
