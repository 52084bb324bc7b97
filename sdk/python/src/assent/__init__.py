"""Assent: one transaction over several Redis servers.

```python
import assent

with assent.Client("http://127.0.0.1:7700") as client:
    with client.transaction(name="transfer") as tx:
        left = tx.op("bank-a", "DECRBY", "acct:alice", 30, expect={"ge": 0})
        tx.op("bank-b", "INCRBY", "acct:bob", 30)
    print(left.reply)
```

There are three outcomes. *Committed* is returned. `Aborted` and `Unknown` are raised, and are not
the same: after `Unknown` the transaction may have been committed. `Rejected` says that nothing was
begun.
"""

from assent._async_client import AsyncClient, AsyncInteractive
from assent._client import Client, Interactive
from assent._ids import new_id
from assent._interactive import OpAt, op
from assent._outcome import (
    Aborted,
    AssentError,
    Branch,
    Committed,
    Holder,
    Pending,
    Rejected,
    Unknown,
    Veto,
    View,
)
from assent._transaction import Op, Transaction
from assent._values import Arg, Expect, Param, Reply

__all__ = [
    "Aborted",
    "Arg",
    "AssentError",
    "AsyncClient",
    "AsyncInteractive",
    "Branch",
    "Client",
    "Committed",
    "Expect",
    "Holder",
    "Interactive",
    "Op",
    "OpAt",
    "Param",
    "Pending",
    "Rejected",
    "Reply",
    "Transaction",
    "Unknown",
    "Veto",
    "View",
    "new_id",
    "op",
]
