"""What `--data` means: classes, image side and parts of a dataset, known without opening more than headers.

Knows nothing of how images are decoded, split or trained on, and must never import torch: a plan is printed from here.
"""

from scalesearch.dataset.sources import describe as describe
from scalesearch.dataset.value import Dataset as Dataset
