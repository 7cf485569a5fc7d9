-- The four roles of Meterplane. Idempotent; run by a superuser once per cluster.
-- Passwords are set apart from this file.
--
--   meterplane_owner    owns the tables and runs migrations over all rows; never serves a request
--   meterplane_app      web and workers: row-level security is forced on it
--   meterplane_system   sees every tenant; entered by SET LOCAL ROLE for jobs that must
--   meterplane_gateway  reads compiled policies and servings, takes budget blocks; nothing else
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY[
    'meterplane_owner', 'meterplane_app', 'meterplane_system', 'meterplane_gateway'
  ] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', name);
    END IF;
  END LOOP;
END $$;

ALTER ROLE meterplane_system BYPASSRLS;
-- Migrations must see every row: a foreign key validated under row-level security would pass over
-- the rows it cannot see.
ALTER ROLE meterplane_owner BYPASSRLS;
-- NOINHERIT above: membership gives no right until SET ROLE, so a query outside the door is
-- still bound by row-level security.
GRANT meterplane_system TO meterplane_app;
ALTER ROLE meterplane_app SET statement_timeout = '60s';
ALTER ROLE meterplane_app SET lock_timeout = '10s';
ALTER ROLE meterplane_gateway SET statement_timeout = '5s';
