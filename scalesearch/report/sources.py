"""The works that a run rests on, as BibTeX: those of the methods that it really used."""

from __future__ import annotations

from collections.abc import Iterator

from scalesearch.outcome import Outcome
from scalesearch.plan import Plan

EFFICIENTNET = """@inproceedings{tan2019efficientnet,
  title     = {{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks},
  author    = {Tan, Mingxing and Le, Quoc V.},
  booktitle = {International Conference on Machine Learning},
  year      = {2019},
  note      = {arXiv:1905.11946}
}"""
FAST = """@inproceedings{dollar2021fast,
  title     = {Fast and Accurate Model Scaling},
  author    = {Doll{\\'a}r, Piotr and Singh, Mannat and Girshick, Ross},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021},
  note      = {arXiv:2103.06877; the reference points dwr and fast}
}"""
EFFICIENTNETX = """@inproceedings{li2021searching,
  title     = {Searching for Fast Model Families on Datacenter Accelerators},
  author    = {Li, Sheng and Tan, Mingxing and Pang, Ruoming and Li, Andrew and Cheng, Liqun and
               Le, Quoc V. and Jouppi, Norman P.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021},
  note      = {arXiv:2102.05610; the reference point effnetx-gpu}
}"""
OPTUNA = """@inproceedings{akiba2019optuna,
  title     = {Optuna: A Next-generation Hyperparameter Optimization Framework},
  author    = {Akiba, Takuya and Sano, Shotaro and Yanase, Toshihiko and Ohta, Takeru and Koyama, Masanori},
  booktitle = {ACM SIGKDD International Conference on Knowledge Discovery and Data Mining},
  year      = {2019},
  note      = {the study that holds the trials}
}"""
TUKEY = """@article{kramer1956extension,
  title   = {Extension of Multiple Range Tests to Group Means with Unequal Numbers of Replications},
  author  = {Kramer, Clyde Young},
  journal = {Biometrics},
  volume  = {12},
  number  = {3},
  pages   = {307--310},
  year    = {1956},
  note    = {Tukey-Kramer intervals between means}
}"""
MIXTURES = """@article{scheffe1958experiments,
  title   = {Experiments with Mixtures},
  author  = {Scheff{\\'e}, Henry},
  journal = {Journal of the Royal Statistical Society: Series B},
  volume  = {20},
  number  = {2},
  pages   = {344--360},
  year    = {1958},
  note    = {the quadratic mixture polynomial of the response surface}
}"""
KENNEDY = """@article{kennedy2000predicting,
  title   = {Predicting the Output from a Complex Computer Code When Fast Approximations Are Available},
  author  = {Kennedy, Marc C. and O'Hagan, Anthony},
  journal = {Biometrika},
  volume  = {87},
  number  = {1},
  pages   = {1--13},
  year    = {2000},
  doi     = {10.1093/biomet/87.1.1},
  note    = {short trainings as a hint of long ones}
}"""
KENDALL = """@article{kendall1945treatment,
  title   = {The Treatment of Ties in Ranking Problems},
  author  = {Kendall, M. G.},
  journal = {Biometrika},
  volume  = {33},
  number  = {3},
  pages   = {239--251},
  year    = {1945},
  doi     = {10.1093/biomet/33.3.239},
  note    = {tau-b between training lengths}
}"""
FRAZIER = """@article{frazier2009knowledge,
  title   = {The Knowledge-Gradient Policy for Correlated Normal Beliefs},
  author  = {Frazier, Peter and Powell, Warren and Dayanik, Savas},
  journal = {INFORMS Journal on Computing},
  volume  = {21},
  number  = {4},
  pages   = {599--613},
  year    = {2009},
  note    = {which trial comes next, policy fit}
}"""


def bibtex(plan: Plan, outcome: Outcome | None) -> str:
    """The entries of the methods behind a run."""
    return "\n\n".join(_entries(plan, outcome))


def _entries(plan: Plan, outcome: Outcome | None) -> Iterator[str]:
    yield EFFICIENTNET
    if any(one.references for one in outcome.layout.candidates) if outcome else True:
        yield from (FAST, EFFICIENTNETX)
    yield OPTUNA
    if plan.policy == "fit":
        yield FRAZIER
    if outcome is not None and outcome.ranking.rests_on_surface:
        yield MIXTURES
        if len(outcome.fidelity.rungs) > 1:
            yield KENNEDY
    if outcome is not None and (outcome.confirmation or outcome.travel or not outcome.ranking.rests_on_surface):
        yield TUKEY
    if outcome is not None and outcome.fidelity.agreements:
        yield KENDALL
