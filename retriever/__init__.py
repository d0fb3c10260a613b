"""From a question to its answer.

`values` says what goes in and out, `questions` reads, `embedding` makes batches of what could be read, `search` encodes them,
searches and answers; `filters` says which prompts may be answered, `folding` keeps one of each group.
"""

from retriever.filters import Filters
from retriever.search import Retriever
from retriever.values import Answer, Neighbour, Question

__all__ = ["Answer", "Filters", "Neighbour", "Question", "Retriever"]
