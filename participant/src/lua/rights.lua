-- What the agent's user may write, asked before the first write. Redis 6.2 cannot be asked. There
-- the keys are compared when the script is called, and each command is tried once a call, on a key
-- that is as absent afterwards as before.
local TRIAL = ctl .. ':trial'
local TRIALS = {
  HDEL = {'f'}, HINCRBY = {'f', '0'}, HINCRBYFLOAT = {'f', '0'}, HSET = {'f', ''},
  HSETNX = {'f', ''}, INCRBY = {'0'}, LPOP = {}, LPUSH = {''}, LREM = {'0', ''}, LSET = {'0', ''},
  LTRIM = {'0', '0'}, PERSIST = {}, PEXPIREAT = {'1'}, RESTORE = {'0', ''}, RPOP = {},
  RPUSH = {''}, SADD = {''},
  SET = {'', 'XX'}, SREM = {''}, UNLINK = {}, XADD = {'NOMKSTREAM', '*', 'f', ''}, XDEL = {'0-1'},
  ZADD = {'XX', '0', ''}, ZREM = {''},
}
-- What each command that was tried in this call said, false where it may be run.
local tried = {}

-- Why a command may not be run: a code and what is said of it; nothing if it may.
local function lacks_command(name)
  local err = tried[name]
  if err == nil then
    -- What may leave the key there is tried when that can be removed.
    if name ~= 'UNLINK' and name ~= 'SET' then
      local code, detail = lacks_command('UNLINK')
      if code then return code, detail end
    end
    local result = try(name, TRIAL, unpack(TRIALS[name]))
    err = type(result) == 'table' and result.err
    if err and code_of_data(err) then err = false end
    tried[name] = err or false
    if not err and name ~= 'SET' then call('UNLINK', TRIAL) end
  end
  if err then
    return refusal_code(err) or 'redis_refuses', 'Redis refuses ' .. name .. ': ' .. err
  end
end

-- The same of a write.
local function lacks(write)
  if not may then return lacks_command(write[1]) end
  local why = denied(write)
  if why then return 'redis_no_permission', why end
end

local function lacks_any(writes)
  for _, write in ipairs(writes) do
    local code, detail = lacks(write)
    if code then return code, detail end
  end
end

-- The writes that keep a vote and count its end.
local KEEPS, COUNTS = {'HSET', ctl, 'f', ''}, {'HINCRBY', ctl, 'f', '0'}

-- The same of writes that are kept.
local function lacks_right(writes)
  local code, detail = lacks_any({KEEPS, COUNTS})
  if code then return code, detail end
  return lacks_any(writes)
end
