"""One network pair for a fleet, trained by PPO in plain PyTorch, in CleanRL's manner.

The yardstick of `ppo_speed.py`, which runs it with an interpreter that has torch; it needs nothing
else. There is no environment: observations and rewards are random numbers of the right shapes. A
turn of `play` asks the policy for actions at every step, as a rollout would, and a turn of `update`
goes through all minibatches.

    python torch_ppo.py --agents 1000 --steps 128 --inputs 58 --actions 5 --epochs 3

prints one JSON record: seconds of play and of update, of every epoch.
"""

import argparse
import json
import time

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

DISCOUNT, GAE_LAMBDA = 0.999, 0.95
CLIP, ENTROPY_WEIGHT, VALUE_WEIGHT, MAX_GRADIENT_NORM = 0.2, 6e-3, 0.9, 0.5


def layer(fan_in: int, fan_out: int, gain: float = 2.0**0.5) -> nn.Linear:
    """A dense layer with orthogonal weights and no bias yet."""
    made = nn.Linear(fan_in, fan_out)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.constant_(made.bias, 0.0)
    return made


def network(inputs: int, outputs: int, last_gain: float, width: int = 128) -> nn.Sequential:
    """Two hidden layers with leaky ReLUs."""
    return nn.Sequential(
        layer(inputs, width),
        nn.LeakyReLU(),
        layer(width, width),
        nn.LeakyReLU(),
        layer(width, outputs, last_gain),
    )


class Agent(nn.Module):
    """Policy and value networks."""

    def __init__(self, inputs: int, actions: int):
        super().__init__()
        self.actor = network(inputs, actions, 0.01)
        self.critic = network(inputs, 1, 1.0)

    def act(self, x: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Action (drawn if not given), its log probability, entropy and value."""
        chances = torch.distributions.Categorical(logits=self.actor(x), validate_args=False)
        if action is None:
            action = chances.sample()
        return action, chances.log_prob(action), chances.entropy(), self.critic(x).squeeze(-1)


def play(agent: Agent, observed: torch.Tensor, rewards: torch.Tensor) -> list[torch.Tensor]:
    """All agents through all steps, and what PPO keeps: flat tensors over agents and steps."""
    steps = observed.shape[0]
    actions, log_probs, values = [], [], []
    with torch.no_grad():
        for h in range(steps):
            action, log_prob, _, value = agent.act(observed[h])
            actions.append(action)
            log_probs.append(log_prob)
            values.append(value)
        advantages = torch.zeros_like(rewards)
        later = torch.zeros_like(rewards[0])
        for h in reversed(range(steps)):
            coming = values[h + 1] if h + 1 < steps else torch.zeros_like(later)
            delta = rewards[h] + DISCOUNT * coming - values[h]
            later = delta + DISCOUNT * GAE_LAMBDA * later
            advantages[h] = later
        value = torch.stack(values)
        kept = (torch.stack(actions), torch.stack(log_probs), value, advantages, advantages + value)
    return [observed.flatten(0, 1), *(x.flatten(0, 1) for x in kept)]


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    samples: list[torch.Tensor],
    passes: int,
    minibatch: int,
) -> float:
    """All passes over shuffled minibatches; returns the last total loss."""
    count, total = len(samples[0]), torch.zeros(())
    for _ in range(passes):
        order = torch.randperm(count)
        for first in range(0, count, minibatch):
            chosen = order[first : first + minibatch]
            x, action, old_log_prob, old_value, advantage, returns = (s[chosen] for s in samples)
            _, log_prob, entropy, value = agent.act(x, action)
            ratio = (log_prob - old_log_prob).exp()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            policy_loss = torch.max(
                -advantage * ratio, -advantage * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
            ).mean()
            held = old_value + torch.clamp(value - old_value, -CLIP, CLIP)
            value_loss = 0.5 * torch.max((value - returns) ** 2, (held - returns) ** 2).mean()
            total = policy_loss - ENTROPY_WEIGHT * entropy.mean() + VALUE_WEIGHT * value_loss
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
    return total.item()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (
        ("agents", 1000),
        ("steps", 128),
        ("inputs", 58),
        ("actions", 5),
        ("passes", 4),
        ("minibatch", 16384),
        ("epochs", 3),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    agent = Agent(flags.inputs, flags.actions)
    optimizer = torch.optim.Adam(agent.parameters(), lr=2.5e-4, eps=1e-5)
    played, updated = [], []
    for _ in range(flags.epochs):
        observed = torch.rand(flags.steps, flags.agents, flags.inputs)
        rewards = torch.rand(flags.steps, flags.agents)
        begin = time.perf_counter()
        samples = play(agent, observed, rewards)
        middle = time.perf_counter()
        update(agent, optimizer, samples, flags.passes, flags.minibatch)
        played.append(middle - begin)
        updated.append(time.perf_counter() - middle)
    print(json.dumps({"torch": torch.__version__, "play": played, "update": updated}))


if __name__ == "__main__":
    main()
