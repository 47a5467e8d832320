"""SQuAD 1.1's official metric: exact match and F1, each the best over the true answers.

Implements the definition in Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of
Text" (2016), section 6.1: both ignore case, punctuation and English articles.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """Convert to lower case; remove ASCII punctuation, then articles, then surplus spaces."""
    answer = answer.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", answer).split())


def exact_match(prediction: str, truths: Sequence[str]) -> float:
    """Return 1.0 if the normalized prediction equals a normalized true answer, else 0.0."""
    return float(any(normalize(prediction) == normalize(truth) for truth in truths))


def f1(prediction: str, truths: Sequence[str]) -> float:
    """Return the best harmonic mean of word precision and recall over the true answers."""
    return max(_f1_of_one(prediction, truth) for truth in truths)


def score(predictions: Mapping[str, str], truths: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Score a set of questions, in percent.

    Parameters
    ----------
    predictions : mapping of str to str
        Question id to the predicted answer. A question without one scores 0, as in the official metric.
    truths : mapping of str to sequence of str
        Question id to all its true answers.

    Returns
    -------
    dict
        ``exact_match`` and ``f1``, each between 0 and 100.
    """
    answered = [(predictions[key], answers) for key, answers in truths.items() if key in predictions]
    return {
        "exact_match": 100.0 * sum(exact_match(p, t) for p, t in answered) / len(truths),
        "f1": 100.0 * sum(f1(p, t) for p, t in answered) / len(truths),
    }


def _f1_of_one(prediction: str, truth: str) -> float:
    predicted, expected = normalize(prediction).split(), normalize(truth).split()
    shared = sum((Counter(predicted) & Counter(expected)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(expected)
    return 2 * precision * recall / (precision + recall)
