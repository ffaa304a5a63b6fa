-- Lines, their addresses (1.5) and the JSON in them; what is torn is no event.
create macro nano(x) as replace(x::decimal(38, 9)::varchar, '.', '')::hugeint;
create macro instant(x) as epoch_ns(x::timestamptz_ns);
create table piece as
    select parse_path(filename)[-2] as team, unnest(string_split(content, chr(10))) as line,
        generate_subscripts(string_split(content, chr(10)), 1) as place
    from read_text(getvariable('logs'));
create table log as
    select team, "offset", line::json as j, instant(j->>'ts') as moment, (j->>'order_id') as order_id,
        case (j->>'event') when 'cancelled' then 'canceled' else (j->>'event') end as event,
        (j->>'order_status') as state
    from (
        select team, line, coalesce(sum(strlen(line) + 1) over (
            partition by team order by place rows between unbounded preceding and 1 preceding), 0)::bigint as "offset"
        from piece
    ) where json_valid(line) and line <> '';

-- 3.2: terms come from the first event that carries them.
create macro first_told(x, place) as arg_min(x, place) filter (x is not null);
create table terms as
    select team, order_id,
        first_told(j->>'symbol', "offset") as symbol,
        first_told(j->>'side', "offset") as side,
        first_told(j->>'quantity', "offset") as quantity,
        first_told(j->>'notional', "offset") as notional,
        first_told(j->>'order_type', "offset") as order_type,
        first_told(j->>'limit_price', "offset") as limit_price,
        first_told(j->>'stop_price', "offset") as stop_price,
        first_told(j->>'trail_price', "offset") as trail_price,
        first_told(j->>'trail_percent', "offset") as trail_percent,
        first_told(j->>'time_in_force', "offset") as time_in_force,
        first_told(j->>'order_class', "offset") as order_class,
        first_told(j->>'position_intent', "offset") as position_intent,
        first_told(j->>'created_at', "offset") as created_at,
        first_told(j->>'broker_order_id', "offset") as broker_order_id,
        first_told(j->>'client_order_id', "offset") as client_order_id,
        first_told(j->>'requested_price', "offset") as requested_price,
        first_told(j->>'replaces', "offset") as replaces,
        first_told(j->>'replaced_by', "offset") as replaced_by,
        first_told(j->>'parent_order_id', "offset") as parent_order_id,
        arg_min(j->>'ts', moment) as first_ts, arg_max(j->>'ts', moment) as updated_at
    from log group by all;

-- 4.1, 4.2, 4.10: an execution is told by the first fill with its id; the legs of a fill are fills of their own orders.
create table fill as
    with told as (
        select team, order_id, "offset", null as leg, moment, j->>'ts' as ts, j->>'execution_id' as id,
            j->>'price' as price, j->>'qty' as qty, j->>'filled_qty' as filled_qty, null as leg_symbol, null as leg_side
        from log where event in ('fill', 'partial_fill') and (j->'legs') is null
        union all
        select team, leg->>'order_id', "offset", number - 1, moment, ts, leg->>'execution_id', leg->>'price',
            leg->>'qty', null, leg->>'symbol', leg->>'side'
        from (
            select team, "offset", moment, j->>'ts' as ts, unnest((j->'legs')::json[]) as leg,
                generate_subscripts((j->'legs')::json[], 1) as number
            from log where event in ('fill', 'partial_fill') and (j->'legs') is not null
        )
    )
    select * from told
    qualify row_number() over (partition by team, order_id, id order by "offset", leg) = 1;

-- 4.9: each correction once, in a chain of versions; a bust by any name that is known by then takes back what stands.
create table version as
    with recursive correction as (
        select team, order_id, "offset", j->>'ts' as ts, j->>'previous_execution_id' as previous,
            j->>'execution_id' as id, j->>'price' as price, j->>'qty' as qty
        from log where event = 'trade_correct'
        qualify row_number() over (partition by team, order_id, previous order by "offset") = 1
    ), chain as (
        select team, order_id, id as root, id, 0 as depth, "offset", leg, ts, price, qty, filled_qty from fill
        union all
        select c.team, c.order_id, chain.root, c.id, chain.depth + 1, c."offset", null, c.ts, c.price, c.qty, null
        from chain join correction c
            on c.team = chain.team and c.order_id = chain.order_id and c.previous = chain.id
    ), busted as (
        select team, order_id, root, min(log."offset") as bust, arg_min(j->>'ts', log."offset") as bust_ts
        from chain join log using (team, order_id)
        where event = 'trade_bust' and (j->>'previous_execution_id') = chain.id and chain."offset" < log."offset"
        group by all
    )
    select chain.*, bust, bust_ts,
        lead(chain."offset") over versions as next_offset, lag(chain.id) over versions as previous_id,
        lag(chain.qty) over versions as previous_qty, lag(chain.price) over versions as previous_price,
        lag(chain."offset") over versions as previous_offset
    from chain left join busted using (team, order_id, root)
    where bust is null or chain."offset" < bust
    window versions as (partition by chain.team, chain.order_id, chain.root order by depth);

-- Half even, on whole billionths.
create macro average(value, qty) as (
    with parts as (select abs(value) // nullif(qty, 0) as whole, abs(value) % nullif(qty, 0) as rest)
    select sign(value) * (whole + (2 * rest > qty or (2 * rest = qty and whole % 2 = 1))::int) from parts);

-- 4.7, 4.8: what a snapshot knows and the log does not is one trade, and gives way to the fills that come later.
create table gap as
    select s.team, s.order_id, s."offset" as snapshot, s.j->>'ts' as ts, nano(s.j->>'filled_qty') as qty,
        nano(s.j->>'filled_avg_price') * nano(s.j->>'filled_qty') as value,
        coalesce(sum(nano(f.qty)), 0) as known, coalesce(sum(nano(f.qty) * nano(f.price)), 0) as known_value
    from log s left join fill f on f.team = s.team and f.order_id = s.order_id and f."offset" < s."offset"
    where s.event = 'snapshot' group by all having nano(s.j->>'filled_qty') > known;
create table explained as
    select g.team, g.order_id, f."offset", f.ts, snapshot, g.qty - known - sum(nano(f.qty)) over later as missing,
        value - known_value - sum(nano(f.qty) * nano(f.price)) over later as missing_value,
        lag(f."offset") over later as before
    from gap g join fill f on f.team = g.team and f.order_id = g.order_id and f."offset" > snapshot
    where nano(f.filled_qty) <= g.qty
    window later as (partition by g.team, g.order_id order by f."offset");
create table guess as
    select team, order_id, snapshot as "offset", 0 as n, ts, qty - known as qty, value - known_value as value from gap
    union all
    select team, order_id, "offset", 2, ts, missing, missing_value from explained where missing > 0;

-- Section 5: the lines of an event in their order, with the ids that follow from it.
create table line as
    with lines as (
        select v.team, v.order_id, v."offset", v.leg, (e."offset" is not null)::int as n, v.ts, nano(v.qty) as qty,
            nano(v.price) as price, id as execution_id, 'fill' as kind, null::bigint as of
        from version v left join explained e using (team, order_id, "offset") where depth = 0
        union all
        select team, order_id, "offset", null, 0, ts, -nano(previous_qty), nano(previous_price), previous_id,
            'reversal', previous_offset from version where depth > 0
        union all
        select team, order_id, "offset", null, 1, ts, nano(qty), nano(price), id, 'correction', previous_offset
        from version where depth > 0
        union all
        select team, order_id, bust, null, 0, bust_ts, -nano(qty), nano(price), id, 'reversal', "offset"
        from version where bust is not null and next_offset is null
        union all
        select team, order_id, "offset", null, n, ts, qty, average(value, qty), null, 'inferred', null from guess
        union all
        select e.team, e.order_id, e."offset", null, 0, e.ts, -g.qty, average(g.value, g.qty), null, 'reversal',
            g."offset"
        from explained e join guess g
            on g.team = e.team and g.order_id = e.order_id and g."offset" = coalesce(e.before, e.snapshot)
    )
    select *, "offset" || coalesce('-' || leg, '') || '-' || n as trade_id from lines;
create table trade as
    select l.trade_id, l.team as team_id, l.order_id, coalesce(t.symbol, f.leg_symbol) as symbol,
        coalesce(t.side, f.leg_side) as side, l.qty as quantity, l.price as execution_price, t.requested_price,
        t.order_type, l.ts as "timestamp", t.broker_order_id, t.client_order_id, l.execution_id, l.kind,
        case when l.kind = 'reversal' then o.trade_id end as reverses,
        case when l.kind = 'correction' then o.trade_id end as corrects, l."offset", l.leg, l.n
    from line l left join terms t using (team, order_id)
        left join fill f on f.team = l.team and f.order_id = l.order_id and f."offset" = l."offset" and f.leg = l.leg
        left join line o on o.team = l.team and o.order_id = l.order_id and o."offset" = l.of and o.kind <> 'reversal'
    order by l.team, l."offset", l.leg, l.n;

-- 3.3 to 3.5, 3.10: an order ends by name, by status, or by its fills; its status is that of the newest event.
create table ended as
    select team, order_id from log
    where event in ('fill', 'filled', 'canceled', 'expired', 'rejected', 'replaced')
        or state in ('filled', 'canceled', 'cancelled', 'expired', 'rejected', 'replaced')
    union
    select team, order_id from (
        select team, order_id, sum(sum(qty)) over (partition by team, order_id order by "offset") as known
        from line group by team, order_id, "offset"
    ) join terms using (team, order_id) where known >= nano(quantity);
create table applied as
    with counted as (
        select l.team, l.order_id, l."offset", l.moment, l.event from log l
        where event not in ('trade_bust', 'trade_correct') and (event not in ('fill', 'partial_fill') or exists (
            from fill f where f.team = l.team and f.order_id = l.order_id and f."offset" = l."offset"))
    )
    select * from counted
    qualify moment >= coalesce(max(moment) over (
        partition by team, order_id order by "offset" rows between unbounded preceding and 1 preceding), moment);
create table pending as
    with status as (
        select team, order_id, arg_max(event, "offset") as last,
            arg_max(event, "offset") filter (event <> 'partial_fill') as named
        from applied group by all
    ), sums as (
        select team, order_id, sum(qty)::hugeint as filled, sum(qty * price)::hugeint as value from line group by all
    )
    select order_id, team as team_id, symbol, side, quantity, notional, order_type, limit_price, stop_price,
        trail_price, trail_percent,
        case when last <> 'partial_fill' or named in ('pending_cancel', 'pending_replace') then named
            else 'partially_filled' end as status,
        coalesce(filled, 0) as filled_qty, case when filled <> 0 then average(value, filled) end as filled_avg_price,
        time_in_force, order_class, position_intent, coalesce(created_at, first_ts) as created_at, updated_at,
        broker_order_id, client_order_id, requested_price, replaces, replaced_by, parent_order_id
    from terms join status using (team, order_id) left join sums using (team, order_id)
        anti join ended using (team, order_id)
    order by team, instant(coalesce(terms.created_at, first_ts)), order_id;
