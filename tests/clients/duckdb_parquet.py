"""Proves that DuckDB's own S3 client (its httpfs extension, as packaged on PyPI) reads and writes Parquet here: whole tables,
globs, Hive partitions, column and row group pruning by ranges, CSV, and errors by name."""

import pathlib

import duckdb
import duckdb_extension_httpfs

from steps import ACCESS_KEY, ADDRESS, ENDPOINT, REGION, SECRET_KEY, check, equal, main, run, step

BUCKET = "s3://duckdb"
EXTENSION = next(pathlib.Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension"))
db = duckdb.connect()


def one(query):
    return db.execute(query).fetchone()


@step("load httpfs and name the server")
def load():
    run("aws", "--endpoint-url", ENDPOINT, "s3", "mb", BUCKET)
    db.execute(f"LOAD '{EXTENSION}'")
    secret = f"KEY_ID '{ACCESS_KEY}', SECRET '{SECRET_KEY}', REGION '{REGION}', ENDPOINT '{ADDRESS}'"
    db.execute(f"CREATE SECRET (TYPE s3, {secret}, URL_STYLE 'path', USE_SSL false)")


@step("write Parquet and read it back")
def write():
    db.execute("CREATE TABLE t AS SELECT i, i % 7 AS part, hash(i) AS h, 'text ' || i AS s FROM range(1000000) r(i)")
    db.execute(f"COPY t TO '{BUCKET}/one.parquet' (FORMAT parquet, ROW_GROUP_SIZE 50000)")
    wanted = one("SELECT count(*), sum(i), bit_xor(h), max(s) FROM t")
    equal(one(f"SELECT count(*), sum(i), bit_xor(h), max(s) FROM '{BUCKET}/one.parquet'"), wanted)


@step("read one column and one row group by ranges")
def prune():
    equal(one(f"SELECT s FROM '{BUCKET}/one.parquet' WHERE i = 777777"), ("text 777777",))
    equal(one(f"SELECT sum(part) FROM '{BUCKET}/one.parquet'"), one("SELECT sum(part) FROM t"))


@step("Hive partitions and globs")
def hive():
    db.execute(f"COPY t TO '{BUCKET}/parts' (FORMAT parquet, PARTITION_BY (part))")
    files = db.execute(f"SELECT file FROM glob('{BUCKET}/parts/*/*.parquet')").fetchall()
    check(len(files) >= 7, f"{len(files)} files")
    read = f"read_parquet('{BUCKET}/parts/*/*.parquet', hive_partitioning = true)"
    equal(one(f"SELECT count(*), sum(i) FROM {read} WHERE part = 3"), one("SELECT count(*), sum(i) FROM t WHERE part = 3"))


@step("CSV and JSON")
def text():
    db.execute(f"COPY (SELECT i, s FROM t LIMIT 5000) TO '{BUCKET}/t.csv' (HEADER)")
    equal(one(f"SELECT count(*), max(i) FROM '{BUCKET}/t.csv'"), (5000, 4999))
    db.execute(f"COPY (SELECT i, s FROM t LIMIT 5000) TO '{BUCKET}/t.json'")
    equal(one(f"SELECT count(*) FROM '{BUCKET}/t.json'"), (5000,))


@step("an absent file and a wrong key are told")
def errors():
    for query, word in ((f"SELECT * FROM '{BUCKET}/absent.parquet'", "404"), ("SELECT * FROM 's3://duckdb/t.csv'", "403")):
        if word == "403":
            wrong = f"KEY_ID '{ACCESS_KEY}', SECRET 'wrong', REGION '{REGION}', ENDPOINT '{ADDRESS}'"
            db.execute(f"CREATE SECRET w (TYPE s3, {wrong}, URL_STYLE 'path', USE_SSL false, SCOPE 's3://duckdb/t')")
        try:
            one(query)
        except duckdb.Error as error:
            check(word in str(error), str(error))
        else:
            check(False, f"{query} succeeded")


main(duckdb.__version__)
