-- Makes x4_train.parquet, x4_valid.parquet and x4_test.parquet of the benchmark's train.csv, valid.csv and test.csv, with
-- the integers as the buckets it has: floor(log(x)^2) above 2, the integer itself below, and 0 where there is none.
CREATE OR REPLACE TEMP MACRO bucket(x) AS
    CASE WHEN x::DOUBLE > 2 THEN floor(ln(x::DOUBLE) ** 2)::BIGINT ELSE coalesce(trunc(x::DOUBLE), 0)::BIGINT END;
CREATE OR REPLACE TEMP MACRO rows_of(file) AS TABLE
    SELECT * REPLACE (
        bucket(I1) AS I1, bucket(I2) AS I2, bucket(I3) AS I3, bucket(I4) AS I4, bucket(I5) AS I5, bucket(I6) AS I6,
        bucket(I7) AS I7, bucket(I8) AS I8, bucket(I9) AS I9, bucket(I10) AS I10, bucket(I11) AS I11,
        bucket(I12) AS I12, bucket(I13) AS I13
    )
    FROM read_csv(file, header = true, all_varchar = true);
COPY (FROM rows_of('train.csv')) TO 'x4_train.parquet';
COPY (FROM rows_of('valid.csv')) TO 'x4_valid.parquet';
COPY (FROM rows_of('test.csv')) TO 'x4_test.parquet';
