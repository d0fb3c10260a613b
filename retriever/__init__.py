"""From a question to its answer.

`values` says what goes in and out, `questions` reads, `embedding` makes batches of what could be
read, `search` encodes them, searches and answers; `filters` says which prompts may be answered,
`folding` keeps one of each group.
"""

from imprompt.retriever.answers import Answer, Neighbour, Question
from imprompt.retriever.filters import Filters
from imprompt.retriever.search import Retriever

__all__ = ["Answer", "Filters", "Neighbour", "Question", "Retriever"]
