-- How much each table takes on the disk, in bytes, the largest first. rows_about is the estimate of the last
-- ANALYZE, empty where there was none.
SELECT
    relname AS table_name,
    pg_table_size(oid) AS table_bytes,
    pg_indexes_size(oid) AS index_bytes,
    pg_total_relation_size(oid) AS total_bytes,
    CASE WHEN reltuples >= 0 THEN reltuples::bigint END AS rows_about
FROM pg_class
WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
ORDER BY total_bytes DESC, table_name;
