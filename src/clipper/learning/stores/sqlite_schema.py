"""The tables of ``SqliteStore``, for commands that inspect such a file without a store."""

# The version of the tables, in ``PRAGMA user_version``; 0 is a new file. During an upgrade, workers of two Clippers
# may share the file, so a version may only add to what the previous version uses. No file has a version below 4.
SCHEMA_VERSION = 6
# The version of a file whose long contexts are not all moved to digests yet: see ``sqlite_upkeep``.
MOVING_VERSION = 5

# ``told`` has the states that each change has changed, for a while. So nothing that reports changes grows with the
# number of contexts, while each change would write two random pages of an index by revision.
#
# ``long_contexts`` has a separate index, since long rows are packed better in a table with row ids.
#
# ``counted`` has the numbers of contexts and of ids, since counting ten million rows takes a second. Triggers update
# it, so that it is right even if a worker of the version before writes.
_SCHEMA = """
BEGIN IMMEDIATE;
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
CREATE INDEX IF NOT EXISTS changes_of_application ON changes (application, revision);
CREATE TABLE IF NOT EXISTS long_contexts (
    application TEXT, key BLOB, context TEXT NOT NULL,
    PRIMARY KEY (application, key)
);
CREATE TABLE IF NOT EXISTS revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (0, 0);
CREATE TABLE IF NOT EXISTS told (revision INTEGER PRIMARY KEY, at_s REAL NOT NULL, states BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS seen_until (
    application TEXT, id TEXT, until_s REAL NOT NULL,
    PRIMARY KEY (application, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until_by_time ON seen_until (until_s);
CREATE INDEX IF NOT EXISTS seen_until_of_application ON seen_until (application, until_s);

CREATE TABLE IF NOT EXISTS counted (
    application TEXT, kind TEXT, count INTEGER NOT NULL,
    PRIMARY KEY (application, kind)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS context_added AFTER INSERT ON changes WHEN new.context != '' BEGIN
    INSERT INTO counted VALUES (new.application, 'contexts', 1)
    ON CONFLICT (application, kind) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS context_deleted AFTER DELETE ON changes WHEN old.context != '' BEGIN
    UPDATE counted SET count = count - 1 WHERE application = old.application AND kind = 'contexts';
END;
CREATE TRIGGER IF NOT EXISTS id_added AFTER INSERT ON seen_until BEGIN
    INSERT INTO counted VALUES (new.application, 'ids', 1)
    ON CONFLICT (application, kind) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS id_deleted AFTER DELETE ON seen_until BEGIN
    UPDATE counted SET count = count - 1 WHERE application = old.application AND kind = 'ids';
END;
PRAGMA user_version = {version};
COMMIT;
"""


def schema(*, is_new: bool) -> str:
    """Return the statements that make the tables of a new file, or bring an earlier one's up to date."""
    return _SCHEMA.format(version=SCHEMA_VERSION if is_new else MOVING_VERSION)
