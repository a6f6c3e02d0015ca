// The engine as a Node object: the only file besides system.cc that includes napi.h.
//
// Invariants: every Napi call is made on the JavaScript thread. I/O threads reach it by one
// ThreadSafeFunction that carries nothing (NonBlockingCall); what is due is collected there. The
// function keeps the process alive only while promises are pending. Arguments are checked here once
// more only as far as memory safety asks: TypeScript has typed them.
#include <napi.h>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "addon/system.h"
#include "engine/engine.h"

namespace metadisk {

namespace {

class EngineObject final : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Engine",
                       {
                           InstanceMethod<&EngineObject::start>("start"),
                           InstanceMethod<&EngineObject::install>("install"),
                           InstanceMethod<&EngineObject::remove>("remove"),
                           InstanceMethod<&EngineObject::adopt>("adopt"),
                           InstanceMethod<&EngineObject::disconnect>("disconnect"),
                           InstanceMethod<&EngineObject::drain>("drain"),
                           InstanceMethod<&EngineObject::resync>("resync"),
                           InstanceMethod<&EngineObject::cancelResync>("cancelResync"),
                           InstanceMethod<&EngineObject::counters>("counters"),
                           InstanceMethod<&EngineObject::flush>("flush"),
                           InstanceMethod<&EngineObject::stop>("stop"),
                       });
  }

  explicit EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {}
  ~EngineObject() override { close(nullptr); }

 private:
  using Function = Napi::TypedThreadSafeFunction<EngineObject, void>;

  static void onDoorbell(Napi::Env env, Napi::Function, EngineObject* self, void*) {
    if (env != nullptr && self->engine_) self->collect(env);
  }

  static void atExit(EngineObject* self) {
    self->hooked_ = false;
    self->close(nullptr);
  }

  Napi::Value fail(const Napi::Env& env, const std::string& why) {
    Napi::Error::New(env, why).ThrowAsJavaScriptException();
    return env.Undefined();
  }
  bool running(const Napi::Env& env) {
    if (engine_) return true;
    fail(env, "the engine is not started");
    return false;
  }

  Napi::Value start(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (engine_) return fail(env, "the engine is started already");
    if (info.Length() < 2 || !info[0].IsObject() || !info[1].IsFunction()) return fail(env, "start(options, wake)");
    const auto given = info[0].As<Napi::Object>();
    const auto number = [&](const char* name, std::uint32_t low, std::uint32_t high, std::uint32_t otherwise) {
      const Napi::Value value = given.Get(name);
      return value.IsNumber() ? std::clamp(value.As<Napi::Number>().Uint32Value(), low, high) : otherwise;
    };
    EngineOptions options;
    options.threads = number("threads", 1, 64, 1);
    options.queueDepth = number("queueDepth", 1, 1024, 128);
    options.maxRequestBytes = number("maxRequestBytes", 4096, 64U << 20U, 32U << 20U);
    options.spinMicros = number("spinMicros", 0, 1000, 20);
    wake_ = Napi::Persistent(info[1].As<Napi::Function>());
    doorbell_ = TypedDoorbell::New(env, "metadisk doorbell", 0, 1, this);
    doorbell_.Unref(env);
    engine_ = std::make_unique<Engine>(options, [this] { doorbell_.NonBlockingCall(); });
    napi_add_env_cleanup_hook(
        env, [](void* self) { atExit(static_cast<EngineObject*>(self)); }, this);
    hooked_ = true;
    Ref();  // The threads point here until stop().
    return env.Undefined();
  }

  void collect(Napi::Env env) {
    const Napi::HandleScope scope(env);
    engine_->collect();
    if (ended_) close(env);
    if (engine_ && engine_->hasEvents()) wake_.Call({});
  }

  // A promise that an engine callback settles. An empty text is success.
  Napi::Value promise(Napi::Env env, const std::function<void(Engine::Done)>& begin) {
    auto deferred = Napi::Promise::Deferred::New(env);
    const std::uint64_t id = nextPromise_++;
    pending_.emplace(id, deferred);
    if (pending_.size() == 1) doorbell_.Ref(env);
    begin([this, id](const std::string& error) { settle(id, error); });
    return deferred.Promise();
  }

  void settle(std::uint64_t id, const std::string& error) {
    const auto found = pending_.find(id);
    if (found == pending_.end()) return;
    const Napi::Promise::Deferred deferred = found->second;
    pending_.erase(found);
    const Napi::Env env = deferred.Env();
    const Napi::HandleScope scope(env);
    if (pending_.empty()) doorbell_.Unref(env);
    if (error.empty()) {
      deferred.Resolve(env.Undefined());
    } else {
      deferred.Reject(Napi::Error::New(env, error).Value());
    }
  }

  Napi::Value install(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 3 || !info[1].IsTypedArray() || !info[2].IsArray())
      return fail(env, "install(device, plan, components)");
    const auto device = info[0].ToNumber().Uint32Value();
    const auto plan = info[1].As<Napi::Uint8Array>();
    const auto list = info[2].As<Napi::Array>();
    std::vector<ComponentSpec> components;
    for (std::uint32_t i = 0; i < list.Length(); ++i) {
      const auto given = list.Get(i).ToObject();
      ComponentSpec spec;
      spec.component = given.Get("component").ToNumber().Uint32Value();
      spec.fd = given.Get("fd").ToNumber().Int32Value();
      spec.direct = given.Get("direct").ToBoolean();
      spec.align = given.Get("align").ToNumber().Uint32Value();
      spec.blockDevice = given.Get("blockDevice").ToBoolean();
      spec.size = static_cast<std::uint64_t>(given.Get("size").ToNumber().Int64Value()) * 512U;
      components.push_back(spec);
    }
    const std::span bytes(reinterpret_cast<const std::byte*>(plan.Data()), plan.ByteLength());
    return promise(env, [&](Engine::Done done) { engine_->install(device, bytes, components, std::move(done)); });
  }

  Napi::Value remove(const Napi::CallbackInfo& info) {
    if (!running(info.Env())) return info.Env().Undefined();
    const auto device = info[0].ToNumber().Uint32Value();
    return promise(info.Env(), [&](Engine::Done done) { engine_->remove(device, std::move(done)); });
  }

  Napi::Value flush(const Napi::CallbackInfo& info) {
    if (!running(info.Env())) return info.Env().Undefined();
    const auto device = info[0].ToNumber().Uint32Value();
    return promise(info.Env(), [&](Engine::Done done) { engine_->flush(device, std::move(done)); });
  }

  Napi::Value adopt(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 4 || !info[2].IsObject() || !info[3].IsTypedArray())
      return fail(env, "adopt(fd, device, terms, residual)");
    const auto given = info[2].As<Napi::Object>();
    nbd::Terms terms;
    terms.structured = given.Get("structuredReplies").ToBoolean();
    terms.extended = given.Get("extendedHeaders").ToBoolean();
    terms.readOnly = given.Get("readOnly").ToBoolean();
    terms.minBlock = std::max(1U, given.Get("minBlockBytes").ToNumber().Uint32Value());
    if (!std::has_single_bit(terms.minBlock)) return fail(env, "minBlockBytes is not a power of two");
    const Napi::Value contexts = given.Get("contexts");
    if (contexts.IsArray()) {
      const auto list = contexts.As<Napi::Array>();
      for (std::uint32_t i = 0; i < std::min(list.Length(), 2U); ++i) {
        const auto context = list.Get(i).ToObject();
        const bool state = context.Get("name").ToString().Utf8Value() == "metadisk:state";
        terms.contexts.push_back({context.Get("id").ToNumber().Uint32Value(),
                                  state ? nbd::ContextKind::state : nbd::ContextKind::allocation});
      }
    }
    const auto residual = info[3].As<Napi::Uint8Array>();
    std::string error;
    const std::uint32_t id =
        engine_->adopt(info[0].ToNumber().Int32Value(), info[1].ToNumber().Uint32Value(), std::move(terms),
                       {reinterpret_cast<const std::byte*>(residual.Data()), residual.ByteLength()}, error);
    if (id == 0) return fail(env, error);
    return Napi::Number::New(env, id);
  }

  Napi::Value disconnect(const Napi::CallbackInfo& info) {
    if (running(info.Env())) {
      engine_->disconnect(info[0].ToNumber().Uint32Value(), info[1].ToString().Utf8Value() == "now");
    }
    return info.Env().Undefined();
  }

  Napi::Value drain(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Napi::Array out = Napi::Array::New(env);
    if (!engine_) return out;
    std::uint32_t at = 0;
    for (const EngineEvent& event : engine_->drain(info[0].ToNumber().Uint32Value()))
      out.Set(at++, convert(env, event));
    return out;
  }

  static Napi::Object convert(Napi::Env env, const EngineEvent& event) {
    const auto number = [&](auto value) { return Napi::Number::New(env, static_cast<double>(value)); };
    Napi::Object out = Napi::Object::New(env);
    out.Set("device", number(event.device));
    switch (event.kind) {
      case EngineEvent::Kind::componentError: {
        static constexpr const char* ops[] = {"read", "write", "flush"};
        out.Set("kind", "componentError");
        out.Set("generation", number(event.generation));
        out.Set("component", number(event.component));
        out.Set("op", ops[static_cast<std::size_t>(event.op)]);
        out.Set("block", number(event.block));
        out.Set("errno", number(event.error));
        break;
      }
      case EngineEvent::Kind::resyncProgress:
        out.Set("kind", "resyncProgress");
        out.Set("job", number(event.job));
        out.Set("done", number(event.done));
        out.Set("total", number(event.total));
        break;
      case EngineEvent::Kind::resyncEnded: {
        static constexpr const char* outcomes[] = {"done", "cancelled", "failed"};
        out.Set("kind", "resyncEnded");
        out.Set("job", number(event.job));
        out.Set("outcome", outcomes[static_cast<std::size_t>(event.outcome)]);
        out.Set("errno", number(event.error));
        out.Set("done", number(event.done));
        break;
      }
      case EngineEvent::Kind::connectionClosed:
        out.Set("kind", "connectionClosed");
        out.Set("connection", number(event.connection));
        out.Set("reason", event.reason);
        break;
    }
    return out;
  }

  Napi::Value resync(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!running(env)) return env.Undefined();
    if (info.Length() < 2 || !info[1].IsObject()) return fail(env, "resync(device, job)");
    const auto given = info[1].As<Napi::Object>();
    const auto count = [&](const char* name) {
      return static_cast<std::uint64_t>(std::max<std::int64_t>(0, given.Get(name).ToNumber().Int64Value()));
    };
    ResyncJob job;
    job.job = count("job");
    job.target = static_cast<std::uint32_t>(count("target"));
    job.from = count("from");
    job.bufferBlocks = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(count("bufferBlocks"), 1, 2048));
    job.bytesPerSecond = count("bytesPerSecond");
    engine_->resync(info[0].ToNumber().Uint32Value(), job);
    return env.Undefined();
  }

  Napi::Value cancelResync(const Napi::CallbackInfo& info) {
    if (running(info.Env())) engine_->cancelResync(info[0].ToNumber().Uint32Value());
    return info.Env().Undefined();
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto out = Napi::BigUint64Array::New(env, kCounters);
    if (!engine_) return out;
    const auto sums = engine_->counters(info[0].ToNumber().Uint32Value());
    std::copy(sums.begin(), sums.end(), out.Data());
    return out;
  }

  Napi::Value stop(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!engine_) {
      auto deferred = Napi::Promise::Deferred::New(env);
      deferred.Resolve(env.Undefined());
      return deferred.Promise();
    }
    return promise(env, [this](Engine::Done done) {
      engine_->stop([this, done = std::move(done)](const std::string& error) {
        ended_ = true;
        done(error);
      });
    });
  }

  // Threads joined, promises settled, doorbell silent. `env` is null when JavaScript may not run any more.
  void close(napi_env env) {
    if (!engine_) return;
    if (env == nullptr) pending_.clear();
    engine_->stopNow();
    if (env != nullptr) {
      engine_->collect();
      while (!pending_.empty()) settle(pending_.begin()->first, "the engine is stopped");
      if (hooked_) {
        napi_remove_env_cleanup_hook(
            env, [](void* self) { atExit(static_cast<EngineObject*>(self)); }, this);
        hooked_ = false;
      }
    }
    engine_.reset();
    doorbell_.Release();
    ended_ = false;
    if (env != nullptr) {
      wake_.Reset();
      Unref();
    }
  }

  using TypedDoorbell = Napi::TypedThreadSafeFunction<EngineObject, void, &EngineObject::onDoorbell>;

  std::unique_ptr<Engine> engine_;
  TypedDoorbell doorbell_;
  Napi::FunctionReference wake_;
  std::unordered_map<std::uint64_t, Napi::Promise::Deferred> pending_;
  std::uint64_t nextPromise_ = 1;
  bool hooked_ = false;
  bool ended_ = false;
};

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", EngineObject::define(env));
  defineSystem(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(metadisk, init)

}  // namespace metadisk
