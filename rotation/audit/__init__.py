"""The audit trail: hash-chained JSON lines that are kept before what they tell of is done. See docs/audit.md."""

from rotation.audit.files import FileAuditor, StreamAuditor

__all__ = ["FileAuditor", "StreamAuditor"]
