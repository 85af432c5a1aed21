-- Returns whether the database has been migrated.
SELECT to_regclass('insights') IS NOT NULL
