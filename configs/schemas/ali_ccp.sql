-- Makes ali_ccp_train.parquet and ali_ccp_test.parquet of Ali-CCP's sample_skeleton_*.csv and common_features_*.csv: a row
-- for each impression, with the features of its user. In the files, \x01 separates features, \x02 a field and its id, and
-- \x03 an id and its value. A field of which a row has several ids becomes two columns, the ids and their values. Of
-- these it keeps the 50 of the largest values, since a user's are repeated in each of the user's rows.
CREATE OR REPLACE TEMP MACRO ids(features, field) AS
    [split_part(f[strlen(field) + 2:], chr(3), 1)::BIGINT for f in features if starts_with(f, field || chr(2))];
CREATE OR REPLACE TEMP MACRO one(features, field) AS
    CASE WHEN len(ids(features, field)) > 1 THEN error('a row has several ids of the field ' || field)
         ELSE ids(features, field)[1] END;
CREATE OR REPLACE TEMP MACRO several(features, field) AS
    list_sort(
        [{'value': split_part(f, chr(3), 2)::FLOAT, 'id': split_part(f[strlen(field) + 2:], chr(3), 1)::BIGINT}
         for f in features if starts_with(f, field || chr(2))],
        'DESC'
    )[:50];
CREATE OR REPLACE TEMP MACRO users_of(file) AS TABLE
    SELECT user_index,
        one(features, '101') AS f101, one(features, '121') AS f121, one(features, '122') AS f122,
        one(features, '124') AS f124, one(features, '125') AS f125, one(features, '126') AS f126,
        one(features, '127') AS f127, one(features, '128') AS f128, one(features, '129') AS f129,
        several(features, '109_14') AS f109_14, several(features, '110_14') AS f110_14,
        several(features, '127_14') AS f127_14, several(features, '150_14') AS f150_14
    FROM (
        SELECT user_index, string_split(features, chr(1)) AS features
        FROM read_csv(
            file, header = false, delim = ',', quote = '', escape = '',
            columns = {'user_index': 'VARCHAR', 'feature_count': 'BIGINT', 'features': 'VARCHAR'}
        )
    );
CREATE OR REPLACE TEMP MACRO impressions_of(file) AS TABLE
    SELECT click, conversion, user_index,
        one(features, '205') AS f205, one(features, '206') AS f206, one(features, '207') AS f207,
        one(features, '216') AS f216, one(features, '301') AS f301, several(features, '210') AS f210,
        several(features, '508') AS f508, several(features, '509') AS f509, several(features, '702') AS f702,
        several(features, '853') AS f853
    FROM (
        SELECT click, conversion, user_index, string_split(features, chr(1)) AS features
        FROM read_csv(
            file, header = false, delim = ',', quote = '', escape = '',
            columns = {
                'sample_id': 'VARCHAR', 'click': 'INTEGER', 'conversion': 'INTEGER', 'user_index': 'VARCHAR',
                'feature_count': 'BIGINT', 'features': 'VARCHAR'
            }
        )
        WHERE click = 1 OR conversion = 0  -- a few rows have a conversion without a click
    );
CREATE OR REPLACE TEMP MACRO rows_of(skeleton, common) AS TABLE
    SELECT click, conversion,
        f101, f121, f122, f124, f125, f126, f127, f128, f129, f205, f206, f207, f216, f301,
        [x.id for x in f109_14] AS f109_14, [x.value for x in f109_14] AS f109_14_value,
        [x.id for x in f110_14] AS f110_14, [x.value for x in f110_14] AS f110_14_value,
        [x.id for x in f127_14] AS f127_14, [x.value for x in f127_14] AS f127_14_value,
        [x.id for x in f150_14] AS f150_14, [x.value for x in f150_14] AS f150_14_value,
        [x.id for x in f210] AS f210, [x.value for x in f210] AS f210_value,
        [x.id for x in f508] AS f508, [x.value for x in f508] AS f508_value,
        [x.id for x in f509] AS f509, [x.value for x in f509] AS f509_value,
        [x.id for x in f702] AS f702, [x.value for x in f702] AS f702_value,
        [x.id for x in f853] AS f853, [x.value for x in f853] AS f853_value
    FROM impressions_of(skeleton) LEFT JOIN users_of(common) USING (user_index);
COPY (FROM rows_of('sample_skeleton_train.csv', 'common_features_train.csv')) TO 'ali_ccp_train.parquet';
COPY (FROM rows_of('sample_skeleton_test.csv', 'common_features_test.csv')) TO 'ali_ccp_test.parquet';
