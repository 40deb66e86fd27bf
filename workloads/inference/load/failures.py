"""What can go wrong with a request, each under one name. `failure` of an answer is one of these, `error` a sentence."""

CONNECT_REFUSED = "connect_refused"  # nothing listens there
CONNECT_FAILED = "connect_failed"  # no route, no such host, TLS refused, out of ports
CLOSED_EARLY = "closed_early"  # closed before a whole response head
TRUNCATED = "truncated"  # closed, or ended, before the stream said that it was done
HTTP_429 = "http_429"
HTTP_4XX = "http_4xx"
HTTP_5XX = "http_5xx"
HTTP_OTHER = "http_other"  # a redirect, or no HTTP at all
MALFORMED = "malformed"  # an event that isn't JSON or what the protocol has there, or a chunk whose size isn't a number
ERROR_EVENT = "error_event"  # the stream holds an error object
TIMEOUT = "timeout"
ABANDONED = "abandoned"  # in flight when the load was given up, as the server answered nothing any more
NOT_SENT = "not_sent"  # due after that
NO_TOKEN = "no_token"  # a stream in good form without a token
CLIENT_DIED = "client_died"  # our own process ended before it could tell

ALL = (
    CONNECT_REFUSED, CONNECT_FAILED, CLOSED_EARLY, TRUNCATED, HTTP_429, HTTP_4XX, HTTP_5XX, HTTP_OTHER, MALFORMED, ERROR_EVENT,
    TIMEOUT, ABANDONED, NOT_SENT, NO_TOKEN, CLIENT_DIED,
)  # fmt: skip


def of_status(status: int) -> str:
    """Return the failure of an HTTP status other than 200."""
    if status == 429:
        return HTTP_429
    return {4: HTTP_4XX, 5: HTTP_5XX}.get(status // 100, HTTP_OTHER)
