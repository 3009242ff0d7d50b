"""What can go wrong in the control plane, each with what the user can do."""

from __future__ import annotations


class OperatorError(Exception):
    """Base of every error that the operator raises on purpose."""


class ConfigurationError(OperatorError):
    """The operator itself was started with options that cannot work."""


class KubeError(OperatorError):
    """The API server refused or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """The object (or its kind) does not exist."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """Somebody created the object first."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def terminal(self) -> bool:
        """The same request will be refused again: somebody has to change something first."""
        return self.status in {400, 403, 422} and "being terminated" not in self.message


class NotLeadingError(OperatorError):
    """This instance must not write any more: its Lease has run out or was given back."""


class StalledError(OperatorError):
    """The resource cannot make progress until somebody changes something; ``reason`` is a condition reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RedisError(OperatorError):
    """A Redis node refused a command or could not be reached."""


class RedisAuthError(RedisError):
    """A Redis node wants another password."""
