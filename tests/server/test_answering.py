"""Which questions of a batch go through the models and the index together."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from imprompt.core.errors import MemberUnavailable, QueryError
from imprompt.retriever import Question
from imprompt.retriever.questions import ReadQuestion
from imprompt.server.answering import AnswerJob, AnswerRequest, run_jobs
from imprompt.server.prometheus import Metrics


class Noting:
    """A retriever that records the size and the k of each batch."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def answer(self, batch: Sequence[ReadQuestion], k: int, **_: Any) -> list[QueryError]:
        self.asked.append((len(batch), k))
        return [QueryError("no index")] * len(batch)


def test_a_question_for_more_than_the_steady_k_changes_no_other() -> None:
    """The first of 200 neighbours may differ from those of 5, so large k get their own batch."""
    retriever = Noting()
    question = Question(text="a fox")
    jobs = [
        AnswerJob(ReadQuestion(question, None, "a fox", None), AnswerRequest(question, k))
        for k in (5, 200, 50, 129, 128)
    ]
    missing = MemberUnavailable("knn", "it is not asked")
    snapshot: Any = SimpleNamespace(retriever=retriever, ensemble=missing)
    assert len(run_jobs(snapshot, jobs, Metrics())) == 5
    assert retriever.asked == [(3, 128), (2, 200)]
