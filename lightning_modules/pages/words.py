"""The words of the tables, for a reader who meets them for the first time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lightning_modules.results.tables import Table
from lightning_modules.text import NamedByOptions

WORDS = {
    "mean and 95 % interval": "The mean over the images, ± how far the true mean may lie from it with 95 % confidence.",
    "better": "Whether a higher or a lower number is the better one.",
    "images ranked": "How many images have the score by all methods. The places are of these.",
    "Places": "Which method is better than which, by each score. 1 is the best.",
    "maps that show nothing": "Maps that are the same everywhere, or no numbers. They have no score.",
    "eps": "How far a pixel may move, on a scale from 0 (black) to 1 (white). 1/255 is one step of an 8-bit image.",
    "top-1": "Share of images of which the most probable class is the right one.",
    "top-5": "Share of images of which the right class is among the five most probable ones.",
    "success of the attack": "Share of images whose predicted class the attack changed as it wanted, of those that "
    "the network was right about (or all, if they are unlabelled), with its 95 % interval.",
    "predictions changed": "Of how many of all images the predicted class changed, the right and the wrong ones.",
    "maps of": "The method that made the maps.",
    "images moved": "How alike a method's maps of the image and of the attacked image are: their rank correlation, "
    "and how much of their strongest 15 % they have in common. Images that the attack left as they were do not count; "
    "a map that became empty counts as 0.",
    "prediction changed": "The same of those images of which the budget changed the predicted class.",
    "prediction kept": "The same of the others.",
    "under noise": "The same where the image moves as far, in a random direction: what is not the attack's doing.",
    "other picture": "The same of two different pictures, for the same class: less than that says nothing.",
    "maps that became empty": "How many maps show nothing any more.",
    "success in 8 bits": "The same once the attacked images are rounded to 8 bits, as files hold them.",
    "success on": "Share of the images that another network was right about, and that now fool it as well.",
    "L∞": "The largest change of any pixel, on average over the images.",
    "L2": "The size of the change of all pixels together, on average over the images.",
    "rank correlation": "How alike the maps before and after the attack rank the pixels: 1 the same, 0 unrelated.",
    "top 15 % in common": "Share of the strongest 15 % of the pixels that both maps mark.",
    "activation": "What was maximized: how strongly the network responds.",
    "probability": "How sure the network is that the image shows the class.",
    "p": "Probability: how sure the network is that the image shows the class.",
    "shifted": "The same after small random shifts. An image that only fools the network does not survive them.",
    "TV": "Total variation: how much neighbouring pixels differ. Smooth images have little.",
    "clipped": "Share of the colours that ran into pure black or white, where detail is lost. Lower is better.",
    "mean over images (worst)": "The mean over the images and, in brackets, the number of the worst of them.",
    "variant": "Which way the images were made. Both: with smooth images preferred and with random shifts. The others "
    "leave one of these out, or both.",
    "named by": "A judge: a network, as a rule another than made the images, that says what it sees in them. In the "
    "table of single images each judge has a column: #1, 87.1% means that it names the right class first, with this "
    "probability; #12: toaster that the right class is its twelfth, and a toaster its first.",
    "first": "Share of the images of classes of which the judge's most probable class is the right one.",
    "in its top five": "Share of them of which the right class is among the judge's five most probable ones.",
    "mean probability": "How sure the judge is of the right class, on average.",
    "steps": "How often the pixels were changed.",
    "CPU s an image": "Seconds of work of all processor cores together for an image.",
    "seconds": "Time that an image took.",
    "n": "How many images, or maps, the numbers are of.",
    "of all images": "The mean over all images, ± how far the true mean may lie from it with 95 % confidence.",
    "predicted class": "Of maps of the class that the network found most probable.",
    "label's class": "Of maps of the class that the image has: another one where the network was wrong.",
    "classified rightly": "The same without the images that the network was wrong about.",
    "maps scored": "How many maps have the score: some images lack what it takes, such as the box of an object.",
    "difference and 95 % interval": "How much more it is in the second run than in the one that it is compared with, "
    "on average over the pairs; in brackets, between what the true difference lies with 95 % confidence.",
    "pairs": "How many images have the number in both runs. All numbers of the row are of these.",
    "McNemar's test": "How probable it is that one run is right alone as much more often than the other, if neither "
    "is better. Below 0.05 is hardly chance.",
    "total variation": "How much neighbouring pixels differ. Smooth images have little.",
}
"""Word in the tables -> its meaning; classes say their own, and those of their columns."""


def explained_words(tables: Sequence[Table]) -> dict[str, str]:
    """The words in the titles, headers and first columns of tables, and their meanings.

    Example:
        >>> list(explained_words([Table(["score", "SmoothGrad(n_samples=2)"], [["deletion", "0.1"]])]))
        ['SmoothGrad', 'deletion']
    """
    cells = [cell for table in tables for cell in (table.title, *table.header, *(row[0] for row in table.rows if row))]
    words: dict[str, str] = {}
    for each in _subclasses(NamedByOptions):
        words |= {each.__name__: each.meaning, **getattr(each, "column_meanings", {})}
    words = {word: meaning for word, meaning in words.items() if meaning} | WORDS
    return {word: meaning for word, meaning in words.items() if any(_has(cell, word) for cell in cells)}


def _subclasses(family: type[NamedByOptions]) -> Iterator[type[NamedByOptions]]:
    for each in family.__subclasses__():
        yield each
        yield from _subclasses(each)


def _has(cell: str, word: str) -> bool:
    """Whether a cell has the word, not only as a part of a longer one."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", cell) is not None
