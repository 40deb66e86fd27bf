"""What is inside a cluster, against what a stack wants there. Looking changes nothing.

wanted.py says what belongs there, azure.py asks Azure about pools and identities, check.py asks all and survives what isn't allowed.
"""
