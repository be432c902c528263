"""What every test runs under: one thread, no hub, no answer that depends on the machine."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
