# The two outputs of one ledger in one pass: each trade as it comes, and {"pending": [...]} as the last line.
# Numbers are texts until an open order is summed up, and whole ten-thousandths then, far below 2^53: jq has only doubles.

def units: split(".") as $p | ($p[0] + (($p[1] // "") + "0000")[0:4]) | tonumber;
def digits($n): tostring | if length < $n then ("0" * ($n - length)) + . else . end;
def point($n): digits($n + 1) | .[:-$n] + "." + .[-$n:];

# Nine digits behind the point by long division, the half rounded to even. $money is in 1e-8, $units in 1e-4.
def average($money; $units):
  ($units * 10000) as $whole
  | ($money % $whole) as $first
  | (($money - $first) / $whole) as $front
  | reduce range(9) as $_ ([0, $first];
      (.[1] * 10) as $ten | ($ten % $whole) as $rest | [.[0] * 10 + ($ten - $rest) / $whole, $rest])
  | (if .[1] * 2 > $whole or (.[1] * 2 == $whole and .[0] % 2 == 1) then .[0] + 1 else .[0] end) as $nanos
  | if $nanos == 1000000000 then ($front + 1 | tostring) + ".000000000"
    else ($front | tostring) + "." + ($nanos | digits(9)) end;

def row:
  (reduce .fills[] as $f ([0, 0]; .[0] += ($f[1] | units) | .[1] += ($f[0] | units) * ($f[1] | units))) as $sums
  | .terms + {
      team_id: $team, created_at: .created_at, updated_at: .updated_at,
      status: .status, filled_qty: ($sums[0] | point(4))
    }
  | if $sums[0] > 0 then .filled_avg_price = average($sums[1]; $sums[0]) else . end;

# The state is the orders by id and nothing around them, and is changed by setpath alone: jq 1.6 copies the whole state on
# every `=` and `|=`, and wherever `//` or a second reference keeps it alive, which is a hundred times slower.
def placed($e):
  {
    terms: ($e | {order_id, symbol, side, quantity, order_type, time_in_force, limit_price, stop_price, client_order_id}),
    status: "new", created_at: $e.ts, updated_at: $e.ts, seen: {}, fills: [], again: false
  };

def filled($e):
  if .seen[$e.execution_id] then .again = true
  else
    .seen[$e.execution_id] = true
    | if $e.event == "fill" then . + {status: null, fills: [], again: false}
      else . + {
          status: (if .status == "pending_cancel" then .status else "partially_filled" end),
          updated_at: $e.ts, fills: (.fills + [[$e.price, $e.qty]]), again: false
        }
      end
  end;

def marked($e):
  if $e.event == "pending_cancel" or $e.event == "done_for_day" then . + {status: $e.event, updated_at: $e.ts}
  else . + {status: null, fills: []}
  end;

def trade($e):
  .terms | {
    team_id: $team, order_id, symbol, side, quantity: $e.qty, execution_price: $e.price, order_type,
    timestamp: $e.ts, client_order_id, execution_id: $e.execution_id, kind: "fill"
  };

foreach (inputs, null) as $e ({};
  if $e == null then .
  else
    .[$e.order_id] as $order
    | setpath([$e.order_id];
        if $e.event == "new" then placed($e)
        elif $e.qty then ($order | filled($e))
        else ($order | marked($e)) end)
  end;
  if $e == null then {pending: [.[] | select(.status) | row]}
  elif $e.qty then .[$e.order_id] | if .again then empty else trade($e) end
  else empty
  end)
