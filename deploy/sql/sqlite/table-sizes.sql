-- How much each table takes in the file, in bytes, the largest first. It reads the whole file, so it takes a while.
-- What is deleted stays in the file as free pages, in the last row, until somebody runs VACUUM. Needs a sqlite3
-- with the table dbstat, as Debian's has.
WITH pages AS (
    SELECT coalesce(s.tbl_name, d.name) AS table_name, coalesce(s.type = 'index', FALSE) AS is_index, d.pgsize AS bytes
    FROM dbstat d
    LEFT JOIN sqlite_schema s ON s.name = d.name
    WHERE d.aggregate = TRUE
),
sizes AS (
    SELECT
        table_name,
        sum(CASE WHEN is_index THEN 0 ELSE bytes END) AS table_bytes,
        sum(CASE WHEN is_index THEN bytes ELSE 0 END) AS index_bytes,
        sum(bytes) AS total_bytes
    FROM pages
    GROUP BY table_name
    UNION ALL
    SELECT '(free pages)', freelist_count * page_size, 0, freelist_count * page_size
    FROM pragma_freelist_count, pragma_page_size
)
SELECT table_name, table_bytes, index_bytes, total_bytes
FROM sizes
ORDER BY table_name = '(free pages)', total_bytes DESC, table_name;
