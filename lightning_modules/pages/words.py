"""The words of the tables, for a reader who meets them for the first time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_modules.results.tables import Table

WORDS = {
    "GradCAM": "Grad-CAM. Marks the regions that raise the score of the class. It is coarse, but knows classes apart.",
    "GradCAMPlusPlus": "Grad-CAM++. As Grad-CAM, but of several objects of the class each counts.",
    "XGradCAM": "XGrad-CAM. As Grad-CAM, but what a channel is worth is judged where it responds.",
    "HiResCAM": "As Grad-CAM, but each place of a channel counts by what it does itself, not by the channel's mean.",
    "LayerCAM": "As HiResCAM, of what raises the score alone. It can look at fine layers too, and join several.",
    "GuidedBackprop": "Guided Backpropagation. Marks the pixels and edges that the network responds to. It is "
    "sharp, but hardly depends on the class.",
    "GuidedGradCAM": "Guided Grad-CAM. The product of the two: the sharp pixels, inside the regions of the class.",
    "SmoothGrad": "How much each pixel changes the score, averaged over noisy copies of the image.",
    "Saliency": "How much each pixel changes the score of the class.",
    "InputXGradient": "How much each pixel adds to the score: how bright it is, times how much it changes the score.",
    "VarGrad": "How much the effect of each pixel varies over noisy copies of the image.",
    "Random": "A map of random numbers. A method that does not beat it explains nothing.",
    "CentreGaussian": "A bright spot in the middle, the same for all images. It is what a score gives for nothing.",
    "EdgeFilter": "The edges of the image. They do not depend on the network, so a method should beat them.",
    "OtherImage": "The map of another picture, this one turned or mirrored. A map that explains this one beats it.",
    "IntegratedGradients": "What each pixel adds to the score, from an image without information to this one.",
    "ScoreCAM": "Score-CAM. As Grad-CAM, but a channel is worth what the network says of the part that it shows.",
    "Occlusion": "How much probability is lost when a window around a pixel is hidden.",
    "RISE": "How probable the class is, on average, when the pixel is shown and random others are hidden.",
    "FGSM": "An attack in one step: every pixel moves by the same small amount, up or down, as hurts most.",
    "PGD": "An attack in many small steps.",
    "mean and 95 % interval": "The mean over the images, ± how far the true mean may lie from it with 95 % confidence.",
    "pointing_game": "Share of maps of which the brightest pixel lies on the object. Higher is better.",
    "energy_in_box": "Share of a map's total strength that lies inside the object's box. Higher is better.",
    "localization_error_top1": "Share of images where the map's box or the predicted class is wrong. Lower is better.",
    "localization_error_top5": "The same, where the class may be any of the five most probable ones.",
    "class_discrimination": "Of two objects, how much more of the map lies on the one asked for. Higher is better.",
    "insertion": "How soon the network knows the class when the marked pixels appear first. Higher is better.",
    "deletion": "How long the network knows the class when the marked pixels vanish first. Lower is better.",
    "average_drop": "How much probability is lost when only what the map marks is shown. Lower is better.",
    "increase_in_confidence": "Share of images of which the class becomes more probable then. Higher is better.",
    "sparseness": "How few pixels a map marks: 0 where all count the same, near 1 where few hold it all. It does not "
    "say whether they are the right ones. Higher is better.",
    "sensitivity_max": "How far a map moves at the most, as a share of its size, when the image hardly changes. Lower "
    "is better.",
    "tied_pixels": "Share of the pixels that a map marks as much as another. Chance decides which of them goes first.",
    "road_tied_pixels": "Share of the pixels that a map marks as much as another. Chance decides which of them goes.",
    "infidelity": "How far a map is from foretelling what noise in the image does to the score of the class. Lower "
    "is better. Networks cannot be compared by it.",
    "infidelity_explained": "How much of what noise in the image does to the score a map foretells: 1 all, 0 nothing. "
    "Higher is better.",
    "infidelity_explained_null": "The same of the map with its pixels shuffled, which foretells nothing: chance.",
    "road": "How much more probability is lost when the pixels that the map marks are smoothed out than when the "
    "others are; half of the difference. Higher is better.",
    "road_most": "How the probability changes when the marked pixels are smoothed out. Lower is better.",
    "road_least": "How the probability changes when those that the map marks least are. Higher is better.",
    "better": "Whether a higher or a lower number is the better one.",
    "images ranked": "How many images have the score by all methods. The places are of these.",
    "Places": "Which method is better than which, by each score. 1 is the best.",
    "completeness_error": "How far the sum of a map is from the score that it should explain. Lower is better.",
    "relative_completeness_error": "The same as a share of that score. More than 0.05 asks for more steps.",
    "randomization_correlation": "How alike a map stays while the network forgets what it has learnt, on average over "
    "the layers. A map that stays the same does not explain the network. Lower is better.",
    "randomization_correlation_first": "The same when only the last layer has forgotten. The map must change at once.",
    "randomization_correlation_end": "The same when all is forgotten.",
    "randomization_correlation_floor": "How alike the maps of different images are. Less cannot be asked for.",
    "randomization_ssim": "How alike the two maps look while the network forgets, on average over the layers.",
    "randomization_ssim_first": "The same when only the last layer has forgotten.",
    "randomization_ssim_end": "The same when all is forgotten.",
    "randomization_ssim_floor": "How alike the maps of different images look. Less cannot be asked for.",
    "maps that show nothing": "Maps that are the same everywhere, or no numbers. They have no score.",
    "eps": "How far a pixel may move, on a scale from 0 (black) to 1 (white). 1/255 is one step of an 8-bit image.",
    "top-1": "Share of images of which the most probable class is the right one.",
    "top-5": "Share of images of which the right class is among the five most probable ones.",
    "success of the attack": "Share of images whose predicted class the attack changed as it wanted, of those that the "
    "network was right about (or all, if they are unlabelled), with its 95 % interval.",
    "predictions changed": "Of how many of all images the predicted class changed, the right and the wrong ones.",
    "maps of": "The method that made the maps.",
    "images moved": "How alike a method's maps of the image and of the attacked image are: their rank correlation, and "
    "how much of their strongest 15 % they have in common. Images that the attack left as they were do not count; a "
    "map that became empty counts as 0.",
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
    "named by": "A judge: a network, as a rule another than made the images, that says what it sees in them. In "
    "the table of single images each judge has a column: #1, 87.1% means that it names the right class first, with "
    "this probability; #12: toaster that the right class is its twelfth, and a toaster its first.",
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
    "McNemar's test": "How probable it is that one run is right alone as much more often than the other, if neither is "
    "better. Below 0.05 is hardly chance.",
    "total variation": "How much neighbouring pixels differ. Smooth images have little.",
}
"""What stands in the tables -> what it means."""


def explained_words(tables: Sequence[Table]) -> dict[str, str]:
    """The words that stand in the headers and first columns of tables, and what they mean.

    Example:
        >>> list(explained_words([Table(["score", "SmoothGrad(n_samples=2)"], [["deletion", "0.1"]])]))
        ['SmoothGrad', 'deletion']
    """
    cells = [cell for table in tables for cell in (table.title, *table.header, *(row[0] for row in table.rows if row))]
    return {word: meaning for word, meaning in WORDS.items() if any(_has(cell, word) for cell in cells)}


def _has(cell: str, word: str) -> bool:
    """Whether a cell has the word, not only as a part of a longer one."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", cell) is not None
