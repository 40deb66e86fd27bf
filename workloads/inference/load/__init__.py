"""The load generator: when requests are sent, how they are sent, and what came back, as raw stamps.

schedule.py says when, ncdemo/spec/traces.py and synthesize.py say what, client.py sends and stamps, parse.py reads afterwards,
run.py does it with several processes. canned/ is a server to measure all of this against, and ceiling.py measures it.
"""
