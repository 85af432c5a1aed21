-- Whether the database answers and has been migrated.
SELECT to_regclass('insights') IS NOT NULL
