-- A database and a user for each service; nobody reads another's.
create role "order" login password 'order';
create role inventory login password 'inventory';
create role email login password 'email';
create database "order" owner "order";
create database inventory owner inventory;
create database email owner email;
revoke connect, temporary on database "order", inventory, email, postgres, template1 from public;
