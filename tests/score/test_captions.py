"""Likeness of texts equals maintained implementations: nltk, rouge-score, and the CIDEr that captioning papers report."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

from streamproc.score import captions

WORDS = [
    "a",
    "the",
    "ego",
    "car",
    "van",
    "truck",
    "turns",
    "turning",
    "left",
    "right",
    "crosses",
    "road",
    "crash",
    "crashed",
    "into",
    "person",
    "cat",
    "slowly",
    "fast",
]


def sentences(seed: int, count: int, *, least: int = 1) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Texts, and one to three references each: the text with words changed, dropped and moved."""
    chance = random.Random(seed)
    texts, references = [], []
    for _ in range(count):
        text = chance.choices(WORDS, k=chance.randint(least, 14))
        refs = []
        for _ in range(chance.randint(1, 3)):
            ref = [w if chance.random() < 0.7 else chance.choice(WORDS) for w in text if chance.random() < 0.9]
            if chance.random() < 0.3:
                chance.shuffle(ref)
            refs.append(ref or ["car"])
        texts.append(text)
        references.append(refs)
    return texts, references


@pytest.mark.parametrize("seed", range(20))
def test_bleu_is_nltks(seed: int) -> None:
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    texts, references = sentences(
        seed, 12, least=4
    )  # nltk counts four words where a text has fewer; the paper does not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk warns where there are no four words in a row; we say 0
        theirs = nltk.corpus_bleu(references, texts)
    assert captions.bleu(texts, references) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_rouge_l_is_googles(seed: int) -> None:
    rouge = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    for text, refs in zip(*sentences(seed, 10), strict=True):
        theirs = max(rouge.score(" ".join(ref), " ".join(text))["rougeL"].fmeasure for ref in refs)
        assert captions.rouge_l(text, refs) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("stemmed", [False, True])
def test_meteor_is_nltks_without_synonyms(seed: int, stemmed: bool) -> None:
    meteor = pytest.importorskip("nltk.translate.meteor_score").meteor_score
    porter = pytest.importorskip("nltk.stem.porter").PorterStemmer()

    class Stem:
        def stem(self, word: str) -> str:
            return str(porter.stem(word)) if stemmed else word

    class NoSynonyms:
        def synsets(self, word: str) -> list[Any]:
            return []

    for text, refs in zip(*sentences(seed, 10), strict=True):
        theirs = meteor(refs, text, stemmer=Stem(), wordnet=NoSynonyms())
        ours = captions.meteor(text, refs, stem=Stem().stem if stemmed else None)
        assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_cider_is_the_one_of_captioning_papers(seed: int) -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer").CiderScorer(n=4, sigma=6.0)
    texts, references = sentences(seed, 15)
    for text, refs in zip(texts, references, strict=True):
        scorer += (" ".join(text), [" ".join(ref) for ref in refs])
    _, theirs = scorer.compute_score()
    assert captions.cider(texts, references) == pytest.approx(theirs.tolist(), abs=1e-12)


def test_cider_is_what_it_was_when_checked() -> None:
    """For where pycocoevalcap, which is large, is not installed: numbers that it gave."""
    texts = [["a", "red", "car", "turns", "left"], ["a", "dog", "runs"], ["the", "van", "stops"]]
    references = [[["a", "red", "car", "turns"], ["red", "car"]], [["the", "dog", "runs", "away"]], [["nothing"]]]
    assert captions.cider(texts, references) == pytest.approx(CIDER, abs=1e-9)


CIDER = [5.297684819766484, 2.43001078445706, 0.0]


def test_equal_texts_are_as_alike_as_can_be_and_unequal_ones_not_at_all() -> None:
    text, other = captions.words("A van cuts in from the right lane"), captions.words("Pedestrians walk")
    assert captions.bleu([text], [[text]]) == pytest.approx(1.0)
    assert captions.rouge_l(text, [text]) == 1.0
    assert captions.cider([text, other], [[text], [other]])[0] == pytest.approx(10.0)
    assert captions.bleu([text], [[other]]) == captions.rouge_l(text, [other]) == captions.meteor(text, [other]) == 0.0


def test_nothing_said_scores_nothing() -> None:
    assert captions.bleu([[]], [[["a"]]]) == captions.rouge_l([], [["a"]]) == captions.meteor([], [["a"]]) == 0.0
    assert captions.cider([[], []], [[["a"]], [["b"]]]) == [0.0, 0.0]


def test_words_are_lower_case_without_punctuation() -> None:
    assert captions.words("Ego-car: STOPS, at 5.") == ["ego", "car", "stops", "at", "5"]
