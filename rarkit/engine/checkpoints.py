from rarkit.cache.checkpoints import checkpoint_step, latest_checkpoint, write_checkpoint


class Checkpoints:
    def __init__(self, output, ranks):
        self.output = output

    def latest(self):
        return checkpoint_step(self.output)

    def facts(self, step):
        return latest_checkpoint(self.output)["facts"]

    def load(self, step, into):
        state = latest_checkpoint(self.output)["tensors"]
        assert state.keys() == into.keys(), state.keys() ^ into.keys()
        for k, v in into.items():
            v.copy_(state[k])

    def save(self, step, tensors, facts):
        write_checkpoint(self.output, {"tensors": dict(tensors), "facts": dict(facts)}, step)

    def wait(self):
        pass
