"""Not LMDeploy: see published.py."""


class RequestError(RuntimeError):
    message = "refused"
