-- What a branch may cost.
--
-- What a branch costs is counted before it is spent: Redis answers nobody else meanwhile. A step is about what it takes to
-- read an element of a collection, 0.2 to 0.4 microseconds. A call serves many branches: the one that would take it beyond
-- the bounds of one branch is left for the next call.
local MATERIALISED_MAX = 10000
local VALUE_BYTES_MAX = 4194304
local WORK_MAX = 100000
local REPLY_BYTES_MAX = 8388608
-- Bytes of memory of a key of which a digest is made, and the steps that 1,024 of them are: they
-- are dumped and hashed.
local DIGEST_BYTES_MAX, DIGEST_STEPS = 4194304, 16
-- Steps of a call of Redis, and of an op beside its words.
local CALL_STEPS, OP_STEPS = 2, 2
-- Bytes that are copied in one step.
local STEP_BYTES = 1024
-- What MEMORY USAGE says of an element beyond its bytes, at most.
local ELEMENT_OVERHEAD = 200

local function refuse(code, detail, reply) error({code, detail or '', reply}) end

-- Of the branch under way: steps, bytes read and replied, the bytes of arrays that were replied.
local steps, bytes_read, bytes_replied, sizes
-- Of the branches before it in this call.
local call_steps, call_bytes = 0, 0
-- What is thrown by a branch that this call has no room for.
local LATER = {}

local function begin_branch() steps, bytes_read, bytes_replied, sizes = 0, 0, 0, {} end

local function end_branch()
  call_steps, call_bytes = call_steps + steps, call_bytes + bytes_read + bytes_replied
end

local function spend(n)
  steps = steps + n
  if steps > WORK_MAX then
    refuse('too_much_work', 'the ops of the branch would keep Redis busy for too long')
  end
  if steps + call_steps > WORK_MAX then error(LATER) end
end

local function bound_bytes()
  if bytes_read > REPLY_BYTES_MAX or bytes_replied > REPLY_BYTES_MAX then
    refuse('reply_too_large', 'the branch would read more than ' .. REPLY_BYTES_MAX .. ' bytes')
  end
  local sum = bytes_read + bytes_replied
  if call_bytes > 0 and sum + call_bytes > 2 * REPLY_BYTES_MAX then error(LATER) end
end

-- A value of so many bytes is about to be read.
local function reading(bytes)
  if bytes > VALUE_BYTES_MAX then refuse('too_large', 'the value is too large') end
  bytes_read = bytes_read + bytes
  bound_bytes()
  spend(bytes / STEP_BYTES)
end

local function size_of(reply)
  if type(reply) == 'string' then return #reply end
  if type(reply) ~= 'table' then return 0 end
  spend(#reply / 4)
  local size = sizes[reply]
  if not size then
    size = 0
    for _, item in ipairs(reply) do size = size + size_of(item) end
    sizes[reply] = size
  end
  return size
end

-- An op has replied this. Until the replies are packed, equal ones are one string.
local function replied(reply)
  bytes_replied = bytes_replied + size_of(reply)
  bound_bytes()
end

