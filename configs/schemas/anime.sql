-- Joins the ratings with what is known of the titles. Run it in the folder of the two files, with DuckDB.
COPY (
    SELECT r.User_ID AS user_id, r.Anime_ID AS anime_id, r.Feedback AS rating, i.genre, i.type, i.episodes, i.members
    FROM read_csv('anime_ratings.dat', delim = '\t') AS r
    LEFT JOIN read_csv('anime_info.dat', delim = '\t') AS i ON r.Anime_ID = i.anime_ids
    ORDER BY user_id, anime_id
) TO 'ratings.csv';
