"""The tables, as the newest migration leaves them. Times are UTC in RFC 3339; ids are random texts."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    func,
    select,
)

metadata = MetaData()

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),
    Column("runs_at_once", Integer),  # quotas of this user alone; None: the service's
    Column("runs_per_day", Integer),
    Column("bytes", BigInteger),
)

#: Keys of programs, and what a browser signs in with. Of each only the digest is kept.
keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),  # key, once (a sign-in link) or session (a cookie)
    Column("sha256", Text, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("expires", Text),
    Column("revoked", Text),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("title", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("last_turn", Integer, nullable=False),
    Column("last_event", Integer, nullable=False),
    Column("turn_host", Text),  # the process whose turn goes on
    Index("conversations_of", "user_id", "created"),
)

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("turn", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", JSON, nullable=False),
    Column("created", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="SET NULL")),
    Column("turn", Integer),
    Column("status", Text, nullable=False),  # queued, running, or the word of its end
    Column("host_id", Text, nullable=False),  # the process that conducts it
    Column("client", Text, nullable=False),
    Column("scenario", Integer),
    Column("prog_name", Text, nullable=False),
    Column("asked", JSON, nullable=False),  # code, contract, timeout_s, tools, inputs
    Column("created", Text, nullable=False),
    Column("started", Text),
    Column("ended", Text),
    Column("bytes", BigInteger, nullable=False),  # of its files
    Column("cost", JSON),  # wall_s, cpu_s, max_rss_bytes
    Column("result", JSON),
    Index("runs_of", "user_id", "created"),
    Index("runs_on", "status", "host_id"),
    Index("runs_used", "user_id", "status", "created", "bytes"),  # all that a quota asks for
)

#: What happened, of a run and of a conversation. `stream` is the run, or else the conversation; an event of a run in a
#: conversation has a number in both.
events = Table(
    "events",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("conversation_id", Text),
    Column("conversation_seq", Integer),
    Column("kind", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("turn", Integer),
    Column("data", JSON, nullable=False),
    Index("events_of_conversation", "conversation_id", "conversation_seq"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("created", Text, nullable=False),
    Index("uploads_of", "user_id", "created"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created", Text, nullable=False),
)

#: The living processes of a service that several share. One whose beat stays the same has died, and its runs with it.
hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("beat", BigInteger, nullable=False),  # raised all the time
)

# Of each run, and so made once: making a statement takes longer than the database does. The words are compared one by
# one, because for `in_` the text of the statement is made anew each time.
_STATUS_IS_OPEN = (runs.c.status == "queued") | (runs.c.status == "running")
IS_OPEN = (runs.c.id == bindparam("run")) & _STATUS_IS_OPEN
#: What a user has: runs that have not ended, runs begun since a moment, bytes of all runs' files.
USED = select(
    func.count().filter(_STATUS_IS_OPEN).label("now"),
    func.count().filter(runs.c.created > bindparam("since")).label("since"),
    func.coalesce(func.sum(runs.c.bytes), 0).label("bytes"),
).where(runs.c.user_id == bindparam("of"))
