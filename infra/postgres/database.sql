-- Default grants inside one Meterplane database. Idempotent; run by a superuser or the owner,
-- before the first migration.
GRANT CREATE, USAGE ON SCHEMA public TO meterplane_owner;
GRANT USAGE ON SCHEMA public TO meterplane_app, meterplane_system, meterplane_gateway;
ALTER DEFAULT PRIVILEGES FOR ROLE meterplane_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO meterplane_app, meterplane_system;
ALTER DEFAULT PRIVILEGES FOR ROLE meterplane_owner IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO meterplane_app, meterplane_system;
ALTER DEFAULT PRIVILEGES FOR ROLE meterplane_owner
  REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE meterplane_owner IN SCHEMA public
  GRANT EXECUTE ON FUNCTIONS TO meterplane_app, meterplane_system;
