#include "addon/events.h"

namespace metadisk {

Napi::Object eventObject(Napi::Env env, const EngineEvent& event) {
  static constexpr const char* kinds[] = {
      "componentError",   "componentRepaired", "held",        "regionsDirty",     "regionsIdle", "resyncProgress",
      "resyncCheckpoint", "verifyMismatch",    "resyncEnded", "connectionClosed", "replayed"};
  const auto number = [&](auto value) { return Napi::Number::New(env, static_cast<double>(value)); };
  Napi::Object out = Napi::Object::New(env);
  out.Set("kind", kinds[static_cast<std::size_t>(event.kind)]);
  out.Set("device", number(event.device));
  switch (event.kind) {
    case EngineEvent::Kind::componentError: {
      static constexpr const char* ops[] = {"read", "write", "flush"};
      out.Set("generation", number(event.generation));
      out.Set("component", number(event.component));
      out.Set("op", ops[static_cast<std::size_t>(event.op)]);
      out.Set("block", number(event.block));
      out.Set("errno", number(event.error));
      out.Set("masked", Napi::Boolean::New(env, event.masked));
      out.Set("repairFailed", Napi::Boolean::New(env, event.repairFailed));
      break;
    }
    case EngineEvent::Kind::componentRepaired:
      out.Set("generation", number(event.generation));
      out.Set("component", number(event.component));
      out.Set("block", number(event.block));
      out.Set("blocks", number(event.blocks));
      break;
    case EngineEvent::Kind::held:
      out.Set("generation", number(event.generation));
      out.Set("hold", number(event.ticket));
      break;
    case EngineEvent::Kind::regionsDirty:
    case EngineEvent::Kind::regionsIdle: {
      const Napi::Array regions = Napi::Array::New(env, event.regions.size());
      for (std::uint32_t i = 0; i < event.regions.size(); ++i) regions.Set(i, number(event.regions[i]));
      out.Set("ticket", number(event.ticket));
      out.Set("regions", regions);
      out.Set("regionBlocks", number(event.regionBlocks));
      break;
    }
    case EngineEvent::Kind::resyncProgress:
      out.Set("job", number(event.job));
      out.Set("done", number(event.done));
      out.Set("total", number(event.total));
      break;
    case EngineEvent::Kind::resyncCheckpoint:
      out.Set("job", number(event.job));
      out.Set("done", number(event.done));
      break;
    case EngineEvent::Kind::verifyMismatch:
      out.Set("job", number(event.job));
      out.Set("block", number(event.block));
      out.Set("blocks", number(event.blocks));
      break;
    case EngineEvent::Kind::resyncEnded: {
      static constexpr const char* outcomes[] = {"done", "cancelled", "failed"};
      out.Set("job", number(event.job));
      out.Set("outcome", outcomes[static_cast<std::size_t>(event.outcome)]);
      out.Set("errno", number(event.error));
      out.Set("done", number(event.done));
      const bool named = event.component != ResyncEnd::kNoComponent;
      out.Set("component", named ? Napi::Value(number(event.component)) : env.Null());
      out.Set("mismatches", number(event.mismatches));
      break;
    }
    case EngineEvent::Kind::connectionClosed:
      out.Set("connection", number(event.connection));
      out.Set("reason", event.reason);
      break;
    case EngineEvent::Kind::replayed:
      out.Set("generation", number(event.generation));
      out.Set("errno", number(event.error));
      out.Set("groups", number(event.done));
      out.Set("blocks", number(event.blocks));
      out.Set("damaged", number(event.mismatches));
      out.Set("epoch", number(event.ticket));
      break;
  }
  return out;
}

}  // namespace metadisk
