-- Invariant: what an operator can set is here, each with what it does.

create or replace view perdure.settings as
select
  s.name,
  s.value,
  s.description
from perdure.setting as s;

comment on view perdure.settings is 'What put_setting sets for the whole install.';
comment on column perdure.settings.name is 'Name of the setting.';
comment on column perdure.settings.value is 'Its value.';
comment on column perdure.settings.description is 'What it does, with its unit.';
