-- Partitions are made by one function, with a number that is chosen once, at the first migration. Each foreign key
-- from layers and configs to blobs costs a deleted blob one index probe per partition, so 16 is the default, 4 does
-- for a small registry, and 64 wants a reason.
CREATE FUNCTION create_partitions(p_table regclass, p_count integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_count NOT BETWEEN 1 AND 256 THEN
        RAISE EXCEPTION 'the number of partitions must be between 1 and 256, not %', p_count;
    END IF;
    FOR n IN 0 .. p_count - 1 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF %s FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                       p_table::text || '_p' || n, p_table, p_count, n);
    END LOOP;
END
$$;
