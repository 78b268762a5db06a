local hs = {}
local status = obj.status

-- Until the operator has seen this very spec, what the status says is of an earlier one.
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  hs.status = "Progressing"
  hs.message = "Waiting for the operator to see the spec"
  return hs
end

-- Of the conditions, all but Ready are there only while they are true.
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "True" then
    found[condition.type] = condition
  elseif condition.type == "Ready" then
    found.NotReady = condition
  end
end

if found.Ready ~= nil then
  hs.status = "Healthy"
  hs.message = found.Ready.message
  return hs
end

if found.Stalled ~= nil then
  hs.status = "Degraded"
  hs.message = found.Stalled.reason .. ": " .. found.Stalled.message
  return hs
end

if found.Suspended ~= nil then
  hs.status = "Suspended"
  hs.message = found.Suspended.message
  return hs
end

hs.status = "Progressing"
hs.message = "Waiting for the operator"
local about = found.Queued or found.Reconciling or found.NotReady
if about ~= nil then
  hs.message = about.reason .. ": " .. about.message
end
local summary = status.summary or {}
if summary.progress ~= nil and summary.progress ~= "" then
  hs.message = summary.progress .. " samples; " .. hs.message
end
return hs
