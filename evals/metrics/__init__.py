"""Metrics of models of any kind: functions of tensors and callables that end in `evals.metric.Metric`s.

    likelihood          exact log p(x): nats, bits per dimension with the level width of dequantised values
    bounds              ELBO with its split, the importance weighted bound with K samples
    importance_weights  log mean weight, effective sample size, error of the log mean
    annealing           annealed importance sampling, forward and reverse, and the geometric path
    transitions         Metropolis and Hamiltonian moves for it;  rbm_path: the path of a binary RBM
    partition           log Z with an error bar, bounds on both sides, and nats of a model known up to Z
    feature_network     a feature network without a download: trained on labelled data, or random by seed
    frechet             distance of Gaussians fitted to features (the formula of FID)
    manifold            improved precision and recall of features
    mixture_modes       which modes of a known mixture the samples cover
    linear_probe        accuracy of one dense layer on latents
    bleu, latency       translation: quality, and how far the reading is ahead (AP, AL, LAAL, DAL, arcs)
    reconstruction      squared error, Bernoulli nats, accuracy
    retrieval           precision at a rank or a recall

What goes in comes as one tensor or as batches of it (`batches.Rows`). Rows are gathered, or cut anew in blocks of a
fixed size, before they are summed: a result does not depend on how the rows were cut into batches. The
log-probabilities, latents or features of a row are the caller's, and may depend on its batch in their last bits.

`protocol` is what the caller knows (model, data, split, dtype, ...); what a metric knows itself is added to it.
"""
