"""What Alembic runs: the revisions, over the connection that `migrations.upgrade` gives."""

from alembic import context

from tokka.release.migrations import VERSION_TABLE
from tokka.release.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
