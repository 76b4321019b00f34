-- The shop's own tables, in their own schema. Perdure knows nothing of them.
-- Money is in cents. What happens once per order has deliberately no unique constraint here: if an order were reserved,
-- booked or shipped twice, nothing would refuse it, and the comparison of the books at the end would find it.

create schema shop;

create table shop.customer (
  customer_id text primary key,
  name text not null,
  email text not null,
  country text not null,
  card text not null
);

create table shop.product (
  product_id text primary key,
  name text not null,
  price integer not null check (price > 0),
  delivered integer not null check (delivered >= 0),
  stock integer not null check (stock >= 0)
);
comment on column shop.product.delivered is 'What was in stock before the first order; never changes.';

create table shop.orders (
  order_no text primary key,
  customer_id text not null references shop.customer,
  ordered_at timestamp not null,
  total integer not null check (total > 0),
  status text not null default 'new' check (status in ('new', 'reserved', 'paid', 'shipped', 'rejected')),
  reason text
);
comment on column shop.orders.reason is 'Why the order was rejected.';

create table shop.order_line (
  order_no text not null references shop.orders,
  product_id text not null references shop.product,
  quantity integer not null check (quantity > 0),
  primary key (order_no, product_id)
);

create table shop.reservation (
  order_no text not null references shop.orders,
  product_id text not null references shop.product,
  quantity integer not null
);

create table shop.ledger (
  entry_id bigint generated always as identity primary key,
  booked_at timestamptz not null default clock_timestamp(),
  order_no text not null references shop.orders,
  payment_id text not null,
  amount integer not null
);
comment on table shop.ledger is 'The shop''s own book: what it believes to have been paid.';

create table shop.shipment (
  shipment_id bigint generated always as identity primary key,
  shipped_at timestamptz not null default clock_timestamp(),
  order_no text not null references shop.orders
);

create table shop.faulty_row (
  file text not null,
  line integer not null,
  reason text not null,
  content text not null
);
comment on table shop.faulty_row is 'Rows of the files that were not taken, and why: a bad row stops nobody else''s order.';
