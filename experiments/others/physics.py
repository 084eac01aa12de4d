"""Programs of physics: rigid bodies, molecules, fluids, graphs, spheres, circuits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from others.core import Built, Program, normal

__all__ = ["PROGRAMS"]

PENDULUM = """
<mujoco>
  <option timestep="0.01" iterations="2" ls_iterations="2"><flag contact="disable"/></option>
  <worldbody>
    <body pos="0 0 1">
      <joint type="hinge" axis="0 1 0" damping="0.1"/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 -0.5" mass="1"/>
    </body>
  </worldbody>
</mujoco>
"""


def mjx_step() -> Built:
    """One step of a pendulum, from its angle and speed to the next."""
    import mujoco
    from mujoco import mjx

    model = mjx.put_model(mujoco.MjModel.from_xml_string(PENDULUM), impl="jax")
    data = mjx.make_data(model)

    def step(state: jax.Array) -> jax.Array:
        after = mjx.step(model, data.replace(qpos=state[:1], qvel=state[1:]))
        return jnp.concatenate([after.qpos, after.qvel])

    return step, (normal(2),), 0


def brax_rotation() -> Built:
    """Angles to a quaternion, to a rotated vector, and back to angles."""
    from brax import math

    def turn(angles: jax.Array) -> jax.Array:
        quaternion = math.euler_to_quat(30 * angles)
        return math.normalize(math.rotate(jnp.array([1.0, 0.2, 0.1]), quaternion))[0] + math.quat_to_euler(quaternion)

    return turn, (normal(3),), 0


def brax_step() -> Built:
    """One step of Brax's spring pipeline: a hinged rod."""
    from brax.io import mjcf
    from brax.spring import pipeline

    system = mjcf.loads(PENDULUM)

    def step(state: jax.Array) -> jax.Array:
        after = pipeline.step(system, pipeline.init(system, state[:1], state[1:]), jnp.zeros(0))
        return jnp.concatenate([after.q, after.qd])

    return step, (normal(2),), 0


def e3nn_harmonics() -> Built:
    import e3nn_jax as e3nn

    def harmonics(x: jax.Array) -> jax.Array:
        return e3nn.spherical_harmonics("0e + 1o + 2e", e3nn.IrrepsArray("1o", x), normalize=True).array

    return harmonics, (normal(3),), 0


def e3nn_product() -> Built:
    """A tensor product of equivariant features, gated."""
    import e3nn_jax as e3nn

    def product(x: jax.Array) -> jax.Array:
        features = e3nn.IrrepsArray("0e + 1o", x)
        return e3nn.scalar_activation(e3nn.tensor_product(features, features)).array

    return product, (normal(4),), 0


def jraph_convolution() -> Built:
    import jraph

    weights = normal(2, 3)

    def convolve(nodes: jax.Array) -> jax.Array:
        graph = jraph.GraphsTuple(
            nodes=nodes,
            edges=None,
            senders=jnp.array([0, 1, 2, 3]),
            receivers=jnp.array([1, 2, 3, 0]),
            n_node=jnp.array([4]),
            n_edge=jnp.array([4]),
            globals=None,
        )
        layer = jraph.GraphConvolution(lambda n: jnp.tanh(n @ weights), add_self_edges=True)
        return layer(graph).nodes

    return convolve, (normal(4, 2),), 0


def jraph_attention() -> Built:
    import jraph

    weights, scores = normal(2, 3), normal(6)

    def attend(nodes: jax.Array) -> jax.Array:
        graph = jraph.GraphsTuple(
            nodes=nodes,
            edges=None,
            senders=jnp.array([0, 1, 2, 0, 1, 2]),
            receivers=jnp.array([1, 2, 0, 0, 1, 2]),
            n_node=jnp.array([3]),
            n_edge=jnp.array([6]),
            globals=None,
        )
        layer = jraph.GAT(
            lambda n: n @ weights,
            lambda s, r, e: jax.nn.leaky_relu(jnp.concatenate([s, r], -1) @ scores)[:, None],  # noqa: ARG005
        )
        return layer(graph).nodes

    return attend, (normal(3, 2),), 0


def cfd_advection() -> Built:
    """A scalar carried by a swirl, by van Leer's scheme, one step."""
    import jax_cfd.base as cfd

    grid = cfd.grids.Grid((4, 4), domain=((0, 1), (0, 1)))
    around = cfd.boundaries.periodic_boundary_conditions(2)
    velocity = tuple(
        cfd.grids.GridVariable(cfd.grids.GridArray(normal(4, 4, seed=k), offset, grid), around)
        for k, offset in enumerate(grid.cell_faces)
    )

    def step(c: jax.Array) -> jax.Array:
        field = cfd.grids.GridVariable(cfd.grids.GridArray(c, grid.cell_center, grid), around)
        return c + 0.01 * cfd.advection.advect_van_leer(field, velocity, 0.01).data

    return step, (normal(4, 4),), 0


def cfd_projection() -> Built:
    """The divergence-free part of a velocity, by a fast Fourier solve of the pressure."""
    import jax_cfd.base as cfd

    grid = cfd.grids.Grid((4, 4), domain=((0, 1), (0, 1)))
    around = cfd.boundaries.periodic_boundary_conditions(2)

    def project(v: jax.Array) -> jax.Array:
        velocity = tuple(
            cfd.grids.GridVariable(cfd.grids.GridArray(v[k], offset, grid), around)
            for k, offset in enumerate(grid.cell_faces)
        )
        return jnp.stack([u.data for u in cfd.pressure.projection(velocity, cfd.pressure.solve_fast_diag)])

    return project, (normal(2, 4, 4),), 0


def md_forces() -> Built:
    """Forces between atoms in a periodic box: the derivative of an energy, differentiated again."""
    from jax_md import energy, quantity, space

    displacement, _ = space.periodic(3.0)
    force = quantity.force(energy.lennard_jones_pair(displacement))
    lattice = jnp.array([[0.0, 0.0], [1.1, 0.1], [0.2, 1.2], [1.4, 1.3]])
    return lambda x: force(lattice + x / 10), (normal(4, 2),), 0


def md_verlet() -> Built:
    """Two steps of velocity Verlet between soft spheres."""
    from jax_md import energy, quantity, space

    displacement, shift = space.periodic(3.0)
    force = quantity.force(energy.soft_sphere_pair(displacement))
    lattice = jnp.array([[0.0, 0.0], [0.8, 0.1], [0.2, 0.9]])

    def move(v: jax.Array) -> jax.Array:
        x = lattice
        for _ in range(2):
            v = v + 0.05 * force(x)
            x = shift(x, 0.1 * v)
            v = v + 0.05 * force(x)
        return x

    return move, (normal(3, 2),), 0


def s2_transform() -> Built:
    """A map on the sphere to the power of its harmonics: complex inside."""
    import s2fft

    def power(f: jax.Array) -> jax.Array:
        return jnp.abs(s2fft.forward(f, 3, sampling="mw", method="jax")) ** 2

    return power, (normal(3, 5),), 0


def pennylane_circuit() -> Built:
    """What two entangled qubits measure, in the angles of their rotations."""
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=2), interface="jax", diff_method="backprop")
    def circuit(angles: jax.Array) -> jax.Array:
        qml.RX(angles[0], wires=0)
        qml.RY(angles[1], wires=1)
        qml.CNOT(wires=[0, 1])
        qml.RZ(angles[2], wires=1)
        return qml.expval(qml.PauliZ(0) @ qml.PauliX(1))

    return lambda angles: jnp.sin(circuit(angles)), (normal(3),), 0


PROGRAMS = (
    Program("MJX: pendulum step", "mujoco", mjx_step, slow=True),
    Program("brax: rotations", "brax", brax_rotation),
    Program("brax: pendulum step", "brax", brax_step, slow=True),
    Program("e3nn: spherical harmonics", "e3nn_jax", e3nn_harmonics),
    Program("e3nn: tensor product", "e3nn_jax", e3nn_product),
    Program("jraph: graph convolution", "jraph", jraph_convolution),
    Program("jraph: graph attention", "jraph", jraph_attention),
    Program("jax-cfd: advection", "jax_cfd", cfd_advection),
    Program("jax-cfd: pressure projection", "jax_cfd", cfd_projection),
    Program("jax-md: forces", "jax_md", md_forces),
    Program("jax-md: velocity Verlet", "jax_md", md_verlet),
    Program("s2fft: power spectrum", "s2fft", s2_transform, slow=True),
    Program("pennylane: two qubits", "pennylane", pennylane_circuit),
)
