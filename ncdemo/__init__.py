"""ncdemo: fine-tune and benchmark language models on Azure H100 capacity, or on this machine, with evidence."""

__version__ = "0.1.0"
