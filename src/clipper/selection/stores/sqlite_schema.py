"""The tables of ``SqliteStore``, for commands that inspect such a file without a store."""

# Version of the tables, in ``PRAGMA user_version``; 0 is from before there were versions. During an upgrade, workers of
# two Clippers may share the file, so a new version may only add to what the previous one uses.
SCHEMA_VERSION = 2

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sums (
    application TEXT, context TEXT, name TEXT, amount REAL NOT NULL,
    PRIMARY KEY (application, context, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS arrays (
    application TEXT, context TEXT, name TEXT, amounts BLOB NOT NULL,
    PRIMARY KEY (application, context, name)
);
CREATE TABLE IF NOT EXISTS changes (
    application TEXT, context TEXT, revision INTEGER NOT NULL,
    PRIMARY KEY (application, context)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS changes_by_revision ON changes (revision);
CREATE TABLE IF NOT EXISTS forgotten (
    application TEXT, context TEXT, revision INTEGER NOT NULL, at_s REAL NOT NULL,
    PRIMARY KEY (application, context)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS forgotten_by_revision ON forgotten (revision);
CREATE TABLE IF NOT EXISTS revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (0, 0);
DROP TABLE IF EXISTS seen;
CREATE TABLE IF NOT EXISTS seen_until (
    application TEXT, id TEXT, until_s REAL NOT NULL,
    PRIMARY KEY (application, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until_by_time ON seen_until (until_s);
PRAGMA user_version = {SCHEMA_VERSION};
"""
