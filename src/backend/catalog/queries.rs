//! The catalog queries, for PostgreSQL 13 to 17. All run in one transaction and see one snapshot.
//!
//! Objects that come with PostgreSQL have oids below 16384 (`FirstNormalObjectId` in `access/transam.h`).
//! Source: <https://www.postgresql.org/docs/current/catalogs.html>.

/// Names in the answers are qualified unless they are PostgreSQL's own; a lock that somebody holds must not hold up
/// everything here. The limits are in milliseconds.
pub(super) fn preamble(limit_ms: u128) -> String {
    format!(
        "SET LOCAL search_path TO ''; SET LOCAL statement_timeout = {limit_ms}; SET LOCAL lock_timeout = {limit_ms}; \
         SET LOCAL jit = off"
    )
}

/// oid, schema, name, kind, row security, system, unlogged.
pub(super) const RELATIONS: &str = "
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relrowsecurity,
           n.nspname IN ('pg_catalog', 'information_schema'), c.relpersistence = 'u'
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       AND c.relpersistence <> 't'
       AND n.nspname <> 'pg_toast'";

/// Parent, child.
pub(super) const CHILDREN: &str = "SELECT inhparent, inhrelid FROM pg_inherits";

/// Referenced, referencing, changes the referencing rows.
pub(super) const FOREIGN_KEYS: &str = "
    SELECT confrelid, conrelid, bool_or(confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('c', 'n', 'd'))
      FROM pg_constraint
     WHERE contype = 'f'
     GROUP BY 1, 2";

/// View, relation read.
pub(super) const VIEW_READS: &str = "
    SELECT DISTINCT r.ev_class, d.refobjid
      FROM pg_depend d
      JOIN pg_rewrite r ON r.oid = d.objid
     WHERE d.classid = 'pg_rewrite'::regclass
       AND d.refclassid = 'pg_class'::regclass
       AND r.ev_type = '1'
       AND d.refobjid <> r.ev_class";

/// Relations whose writes run more than PostgreSQL's own code: enabled triggers with a function of a user (clones at
/// partitions too), rules but views' own, and defaults and checks that call a function of a user that is not
/// immutable.
pub(super) const WRITE_CODE: &str = "
    SELECT tgrelid FROM pg_trigger WHERE tgenabled <> 'D' AND tgfoid >= 16384
    UNION
    SELECT ev_class FROM pg_rewrite WHERE ev_type <> '1' AND ev_enabled <> 'D' AND oid >= 16384
    UNION
    SELECT a.adrelid
      FROM pg_depend d
      JOIN pg_attrdef a ON a.oid = d.objid
      JOIN pg_proc p ON p.oid = d.refobjid
     WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_proc'::regclass
       AND p.provolatile <> 'i' AND p.oid >= 16384
    UNION
    SELECT c.conrelid
      FROM pg_depend d
      JOIN pg_constraint c ON c.oid = d.objid
      JOIN pg_proc p ON p.oid = d.refobjid
     WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_proc'::regclass
       AND p.provolatile <> 'i' AND p.oid >= 16384 AND c.conrelid <> 0";

/// Relation, by a view's query (else by a policy), the function is immutable, it stands behind an operator: code of users
/// that a read of the relation runs.
pub(super) const READ_CODE: &str = "
    WITH called AS (
        SELECT d.classid, d.objid, p.provolatile = 'i' AS immutable, false AS operator
          FROM pg_depend d
          JOIN pg_proc p ON p.oid = d.refobjid
         WHERE d.refclassid = 'pg_proc'::regclass AND p.oid >= 16384
           AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)
        UNION
        SELECT d.classid, d.objid, p.provolatile = 'i', true
          FROM pg_depend d
          JOIN pg_operator o ON o.oid = d.refobjid
          JOIN pg_proc p ON p.oid = o.oprcode
         WHERE d.refclassid = 'pg_operator'::regclass AND o.oid >= 16384
           AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass))
    SELECT r.ev_class, true, c.immutable, c.operator
      FROM called c
      JOIN pg_rewrite r ON r.oid = c.objid AND c.classid = 'pg_rewrite'::regclass
     WHERE r.ev_type = '1'
    UNION
    SELECT l.polrelid, false, c.immutable, c.operator
      FROM called c
      JOIN pg_policy l ON l.oid = c.objid AND c.classid = 'pg_policy'::regclass";

/// View, its query.
pub(super) const VIEWS: &str = "
    SELECT c.oid, pg_get_viewdef(c.oid)
      FROM pg_class c
     WHERE c.relkind = 'v' AND c.oid >= 16384 AND c.relpersistence <> 't'";

/// Name, built in, the worst volatility, can be called as `row.name`.
pub(super) const FUNCTIONS: &str = "
    SELECT p.proname, p.oid < 16384 AND n.nspname IN ('pg_catalog', 'information_schema'),
           max(CASE p.provolatile WHEN 'i' THEN 0 WHEN 's' THEN 1 ELSE 2 END),
           coalesce(bool_or(p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'p', 'd')),
                    false)
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      LEFT JOIN pg_type t ON t.oid = p.proargtypes[0]
     GROUP BY 1, 2";

/// Symbols of operators that a user defined with a function that is not immutable.
pub(super) const OPERATORS: &str = "
    SELECT DISTINCT o.oprname
      FROM pg_operator o
      JOIN pg_proc p ON p.oid = o.oprcode
     WHERE o.oid >= 16384 AND p.provolatile <> 'i'";

/// Oid, name, naming it is enough to refuse: types of users whose input or output is not immutable (enums, ranges,
/// arrays and rows have PostgreSQL's own), and domains with a check that calls a function of a user; and PostgreSQL's
/// own `timetz`, `time`, and what is made of all of these; and what users made of other types that read texts such as `now`.
pub(super) const TYPES: &str = "
    WITH RECURSIVE unfixed AS (
        SELECT t.oid, t.typname, t.typarray, t.oid >= 16384 AS by_user, t.oid = 'time'::regtype AS time, true AS column
          FROM pg_type t
          LEFT JOIN pg_proc i ON i.oid = t.typinput
          LEFT JOIN pg_proc o ON o.oid = t.typoutput
         WHERE t.typtype = 'b' AND t.typcategory <> 'A'
           AND (t.oid IN ('timetz'::regtype, 'time'::regtype)
                OR (i.oid >= 16384 AND i.provolatile <> 'i') OR (o.oid >= 16384 AND o.provolatile <> 'i'))
        UNION
        SELECT t.oid, t.typname, t.typarray, true, false, false
          FROM pg_depend d
          JOIN pg_constraint c ON c.oid = d.objid
          JOIN pg_type t ON t.oid = c.contypid
          JOIN pg_proc p ON p.oid = d.refobjid
         WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_proc'::regclass
           AND p.oid >= 16384 AND p.provolatile <> 'i'
        UNION
        SELECT t.oid, t.typname, t.typarray, false, false, false
          FROM pg_type t
         WHERE t.oid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
        UNION
        SELECT t.oid, t.typname, t.typarray, t.oid >= 16384, u.time, u.column
          FROM unfixed u
          JOIN pg_type t
            ON t.oid = u.typarray OR (t.typtype = 'd' AND t.typbasetype = u.oid)
               OR (t.typtype = 'r' AND EXISTS (SELECT FROM pg_range r
                                                        WHERE r.rngsubtype = u.oid AND t.oid = r.rngtypid))
               OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
                                                WHERE c.oid = t.typrelid AND c.relkind = 'c' AND a.atttypid = u.oid)))
    SELECT u.typname, u.by_user, u.time, u.column,
           coalesce(array_agg(DISTINCT a.attrelid) FILTER (WHERE a.attrelid IS NOT NULL), '{}')
      FROM unfixed u
      LEFT JOIN pg_attribute a
        ON a.atttypid = u.oid AND u.column AND a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384
     GROUP BY u.oid, 1, 2, 3, 4";

/// Name, source, whether that is one expression, defaults of arguments: what users' functions do. The source is null where it
/// cannot be read, or where the function's own settings make it mean something else, and a function is left out where it does nothing to the session: one in C, which only a superuser can
/// make, that says it is immutable, or comes with an extension of which that is known. Sources longer than 64 KiB, and
/// what is beyond 32 MiB of all, are not read.
pub(super) const SOURCES: &str = "
    WITH user_function AS (
        SELECT p.*, l.lanname, sum(octet_length(p.prosrc)) OVER (ORDER BY p.oid) AS so_far
          FROM pg_proc p
          JOIN pg_language l ON l.oid = p.prolang
         WHERE p.oid >= 16384)
    SELECT p.proname,
           CASE WHEN p.prokind = 'a'
                THEN (SELECT concat_ws(' ', g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn,
                                       g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn)
                        FROM pg_aggregate g WHERE g.aggfnoid = p.oid)
                WHEN p.lanname NOT IN ('sql', 'plpgsql') OR octet_length(p.prosrc) > 65536 OR p.so_far > 33554432
                     OR EXISTS (SELECT FROM unnest(p.proconfig) AS setting(text),
                                            lower(split_part(setting.text, '=', 1)) AS name
                                 WHERE name IN ('standard_conforming_strings', 'backslash_quote', 'client_encoding',
                                                'role', 'session_authorization')
                                    OR (name = 'search_path' AND setting.text ILIKE '%pg\\_temp%'))
                THEN NULL
                WHEN p.prosrc = '' THEN pg_get_functiondef(p.oid)
                ELSE p.prosrc
           END,
           p.prokind = 'a' OR p.prosrc = '',
           pg_get_expr(p.proargdefaults, 0)
      FROM user_function p
     WHERE NOT (p.lanname IN ('c', 'internal') AND p.prokind <> 'a'
                AND (p.provolatile = 'i'
                     OR EXISTS (SELECT FROM pg_depend d
                                  JOIN pg_extension e ON e.oid = d.refobjid
                                 WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                                   AND d.refclassid = 'pg_extension'::regclass
                                   AND e.extname IN ('autoinc', 'btree_gin', 'btree_gist', 'citext', 'cube',
                                                     'fuzzystrmatch', 'hstore', 'insert_username', 'intarray', 'ltree',
                                                     'moddatetime', 'pg_trgm', 'pgcrypto', 'seg', 'unaccent', 'uuid-ossp')
                                   AND p.proname <> 'set_limit')))";

/// Occasion, relation if it is of one, operator's symbol if it is one, text: code that runs without being called. `r` when the
/// relation is read, `w` when it is written (for a partition, by the expressions of all that it is part of), `u` both; `o` an operator; `d` a change of definitions; `a` what no statement
/// names: casts, comparisons, domains. Functions in C behind an operator, a cast or a comparison, which often do not say what
/// they are, are taken to do just that.
pub(super) const OCCASIONS: &str = "
    WITH RECURSIVE readable AS (
        SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
         WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')),
    parts AS (
        SELECT partrelid AS top, partrelid AS oid FROM pg_partitioned_table WHERE partexprs IS NOT NULL
        UNION
        SELECT p.top, i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid)
    SELECT 'w', tgrelid, NULL, pg_get_triggerdef(oid)
      FROM pg_trigger WHERE tgenabled <> 'D' AND tgfoid >= 16384
    UNION ALL
    SELECT 'w', ev_class, NULL, pg_get_ruledef(oid)
      FROM pg_rewrite WHERE ev_type <> '1' AND ev_enabled <> 'D' AND oid >= 16384
    UNION ALL
    SELECT 'w', adrelid, NULL, pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid >= 16384
    UNION ALL
    SELECT CASE WHEN conrelid <> 0 THEN 'w' ELSE 'a' END, conrelid, NULL, pg_get_constraintdef(oid)
      FROM pg_constraint WHERE contype IN ('c', 'x') AND oid >= 16384
    UNION ALL
    SELECT 'w', indrelid, NULL, concat_ws(' ', pg_get_expr(indexprs, indrelid), pg_get_expr(indpred, indrelid))
      FROM pg_index WHERE indrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
    UNION ALL
    SELECT 'w', p.oid, NULL, pg_get_expr(t.partexprs, p.top)
      FROM parts p JOIN pg_partitioned_table t ON t.partrelid = p.top
    UNION ALL
    SELECT 'w', oid, NULL, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'm' AND oid >= 16384
    UNION ALL
    SELECT 'u', polrelid, NULL, concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy
    UNION ALL
    SELECT 'o', NULL, o.oprname, p.oid::regproc::text
      FROM pg_operator o JOIN readable p ON p.oid = o.oprcode WHERE o.oid >= 16384
    UNION ALL
    SELECT 'a', NULL, NULL, p.oid::regproc::text FROM pg_cast c JOIN readable p ON p.oid = c.castfunc
    UNION ALL
    SELECT 'a', NULL, NULL, p.oid::regproc::text FROM pg_amproc a JOIN readable p ON p.oid = a.amproc
    UNION ALL
    SELECT 'a', NULL, NULL, p.oid::regproc::text
      FROM pg_range r JOIN readable p ON p.oid IN (r.rngcanonical, r.rngsubdiff)
    UNION ALL
    SELECT 'w', stxrelid, NULL, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
    UNION ALL
    SELECT 'a', NULL, NULL, typdefault FROM pg_type WHERE typtype = 'd' AND typdefault IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT 'd', NULL, NULL, evtfoid::regproc::text
      FROM pg_event_trigger WHERE evtenabled <> 'D' AND evtevent <> 'login'";

/// Relation, columns that are dates or times, columns that may hold a text which a cast reads as such.
pub(super) const COLUMNS: &str = "
    WITH kinds AS (
        SELECT t.oid, coalesce(e.typcategory, t.typcategory) AS category, coalesce(e.typtype, t.typtype) AS kind,
               coalesce(e.oid, t.oid) >= 16384 AS by_user
          FROM pg_type t
          LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'),
    types AS (
        SELECT oid, category IN ('D', 'T', 'R') AND (kind = 'd' OR NOT by_user) AS time,
               category IN ('S', 'X') OR (by_user AND kind NOT IN ('d', 'e')) AS text
          FROM kinds)
    SELECT a.attrelid,
           coalesce(array_agg(a.attname) FILTER (WHERE t.time), '{}'),
           coalesce(array_agg(a.attname) FILTER (WHERE t.text), '{}')
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN types t ON t.oid = a.atttypid AND (t.time OR t.text)
     WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid >= 16384
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
     GROUP BY 1";

/// Whether a cast uses a function of a user that is not immutable.
pub(super) const CASTS: &str = "
    SELECT EXISTS (SELECT FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc
                    WHERE c.oid >= 16384 AND p.provolatile <> 'i')";

/// One text that differs whenever a definition, a privilege or a role differs: counts, and sums of the transactions that
/// wrote the rows. A new row always has a later transaction than those it replaces, so a sum can stay the same only
/// when a count does not. `TRUNCATE` and its like write `pg_class` without a change of definition, so there the columns
/// that matter are hashed. Temporary objects do not count.
pub(super) const DIGEST: &str = "
    WITH permanent AS (
        SELECT oid, hashtextextended(concat_ws(' ', oid, relname, relnamespace, relkind, relpersistence, relowner, relacl, relnatts,
                                               relrowsecurity, relforcerowsecurity, reloptions), 0) AS hash
          FROM pg_class
         WHERE relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND oid >= 16384)
    SELECT concat_ws(' ',
        (SELECT concat(count(*), ':', sum(hash)) FROM permanent),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_proc WHERE oid >= 16384),
        (SELECT concat(count(*), ':', sum(r.xmin::text::int8)) FROM pg_rewrite r JOIN permanent c ON c.oid = r.ev_class),
        (SELECT concat(count(*), ':', sum(t.xmin::text::int8)) FROM pg_trigger t JOIN permanent c ON c.oid = t.tgrelid),
        (SELECT concat(count(*), ':', sum(k.xmin::text::int8)) FROM pg_constraint k
          JOIN pg_namespace n ON n.oid = k.connamespace
         WHERE k.oid >= 16384 AND n.nspname !~ '^pg_temp_'),
        (SELECT concat(count(*), ':', sum(i.xmin::text::int8)) FROM pg_inherits i JOIN permanent c ON c.oid = i.inhrelid),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_policy),
        (SELECT concat(count(*), ':', sum(a.xmin::text::int8)) FROM pg_attrdef a JOIN permanent c ON c.oid = a.adrelid),
        (SELECT concat(count(*), ':', sum(i.indexrelid::int8)) FROM pg_index i JOIN permanent c ON c.oid = i.indrelid
          WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL),
        (SELECT concat(count(*), ':', sum(t.xmin::text::int8)) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
          WHERE t.typtype = 'd' AND t.oid >= 16384 AND n.nspname !~ '^pg_temp_'),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_amproc WHERE oid >= 16384),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_range WHERE rngtypid >= 16384),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_statistic_ext),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_event_trigger),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_operator WHERE oid >= 16384),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_cast WHERE oid >= 16384),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_db_role_setting),
        (SELECT concat(count(*), ':', sum(xmin::text::int8)) FROM pg_auth_members),
        (SELECT concat(count(*), ':', sum(hashtextextended(concat_ws(' ', rolname, rolsuper, rolinherit, rolbypassrls,
                                                                     rolconfig), 0)))
           FROM pg_roles))";
