"""What an Azure subscription lets a stack have: asked over Azure's own REST interfaces, before anything is made.

ask.py asks, retail.py reads prices, region.py judges one region, check.py the whole.
"""
