"""Say whether whoever runs this reaches the results: lists their container, changes nothing.

    NCDEMO_RESULTS_URI=az://metrics/jobs NCDEMO_STORAGE_ACCOUNT=stx python -m workloads.storage_probe

Prints one JSON line {"container": ..., "account": ..., "entries": ...}, or one line of error. `ncdemo doctor cluster --probe-storage`
runs it in the jobs' image with the jobs' service account.
"""

import json
import os
import sys

from ncdemo.spec.base import SpecError
from ncdemo.spec.job import EXIT_BAD_SPEC, EXIT_DONE, EXIT_FAILED, NCDEMO_RESULTS_URI, NCDEMO_STORAGE_ACCOUNT
from workloads.job import leave
from workloads.storage import Storage, short


def main() -> int:
    """Return the exit code."""
    uri, account = os.environ.get(NCDEMO_RESULTS_URI), os.environ.get(NCDEMO_STORAGE_ACCOUNT)
    if not uri:
        print(f"Error: {NCDEMO_RESULTS_URI} is not set; set it to where results go, e.g. az://metrics/jobs", file=sys.stderr)
        return EXIT_BAD_SPEC
    try:
        storage = Storage(uri)
        entries = storage.entries()
    except SpecError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return EXIT_BAD_SPEC
    except Exception as error:  # whatever storage raises is the answer
        said = short(error)
        print(f"Error: {uri} of account {account}: {said}; {remedy(said)}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps({"container": storage.container, "account": account, "entries": entries}))
    return EXIT_DONE


def remedy(said: str) -> str:
    """Return what to do about what storage said."""
    if "FileNotFound" in said or "ContainerNotFound" in said:
        return "the container isn't there: make it with ncdemo stack up"
    if "Authentication" in said or "CredentialUnavailable" in said:
        return "no identity: see the findings on workload identity, accounts and federation"
    if "Authorization" in said or "Permission" in said:
        return "give the jobs' identity Storage Blob Data Contributor on the container (ncdemo stack up), and see the account's firewall"
    return "see the account's name, its firewall, and the network from the cluster to it"


if __name__ == "__main__":
    leave(main())
