-- What all scripts begin with.
--
-- Lua's numbers are doubles: an integer that may be large stays a decimal string throughout.
local call, try = redis.call, redis.pcall
local pack, unpack_record = cmsgpack.pack, cmsgpack.unpack
local match, sub, format = string.match, string.sub, string.format
local ctl = KEYS[1]
-- The cursor into ARGV, behind what was read.
local at

-- Whether one decimal string without a sign is less than another.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- What Redis says of a write that the data does not fit: it is of another type than the vote found,
-- or no number, or gone; and the code of that. Whatever else it says is a refusal of the write
-- itself: a right that is missing, a command that is not there.
local OF_DATA = {
  {'WRONGTYPE', 'wrong_type'}, {'not an integer', 'not_an_integer'},
  {'not a valid float', 'not_a_float'}, {'not a float', 'not_a_float'},
  {'overflow', 'overflow'}, {'no such key', 'no_such_key'}, {'out of range', 'out_of_range'},
  {'equal or smaller', 'stream_id_too_small'}, {'not a number', 'command_refused'},
  {'NaN', 'command_refused'}, {'payload', 'command_refused'},
}

local function code_of_data(err)
  for _, of_data in ipairs(OF_DATA) do
    if string.find(err, of_data[1], 1, true) then return of_data[2] end
  end
end

-- The code of a refusal by Redis, nil if the text is none.
local function refusal_code(text)
  if match(text, 'OOM') then return 'redis_out_of_memory' end
  if match(text, 'MISCONF') or match(text, 'READONLY') or match(text, 'NOREPLICAS') then
    return 'redis_refuses'
  end
  if match(text, 'NOPERM') or match(text, 'ACL failure')
    or match(text, 'user executing the script can') or match(text, 'nknown .*command')
    or match(text, 'Invalid command') then
    return 'redis_no_permission'
  end
  return nil
end

-- Why the agent's user may not make a write; nil if it may. Redis 6.2 cannot be asked.
local may = redis.acl_check_cmd
local function denied(write)
  if not may then return nil end
  local ok, allowed = pcall(may, unpack(write))
  if ok and allowed then return nil end
  local why = ok and 'the agent may not run ' or 'Redis has no command '
  return why .. write[1] .. ' on key ' .. write[2]
end
